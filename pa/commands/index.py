"""`pa index`: parse, call one function of `pa.tasks.index`, print."""

from __future__ import annotations

from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import emit, listed, with_config, with_json


@click.group()
def index() -> None:
    """Build and inspect the vector indexes of stores."""


@index.command("build")
@click.option("--encoder", "encoders", callback=listed, help="Encoder, or several with commas.")
@click.option(
    "--representation",
    "representations",
    callback=listed,
    help="cls, pooled, projected, or several with commas; default pooled.",
)
@click.option("--dataset", "datasets", callback=listed, help="Dataset, or several with commas.")
@click.option("--split", "splits", callback=listed, help="Split, or several with commas.")
@click.option("--view", "views", callback=listed, help="View, or several with commas.")
@click.option(
    "--protocol", "protocols", callback=listed, help="Rules of view parts, or several with commas."
)
@click.option("--store", help="Fingerprint of one store, or its beginning.")
@click.option("--index", "factory", help="FAISS factory string; default SQfp16, exact.")
@click.option(
    "--pieces",
    type=click.IntRange(1),
    default=1,
    help="Fill an IVF index in so many pieces and merge them on disk: memory holds one.",
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="cuda, cuda:1 …: find the lists of an IVF index on a GPU (with faiss-gpu).",
)
@with_json
@with_config
def index_build(config: Any, as_json: bool, **given: Any) -> None:
    """Build the index of one store or of several, replacing what is there.

    Each is built from blocks of its store; memory holds one index, or one piece of it. The recall
    of an approximate index is measured, and kept in its index.json.

    \b
    pa index build
    pa index build --representation cls --index IVF256,Flat@nprobe=16
    pa index build --encoder mocov3,dino --representation pooled,projected --split train,val
    """
    from pa.tasks.index import IndexRequest, build_indexes

    _show(build_indexes(config, IndexRequest(**given), console.progress()), as_json)


@index.command("info")
@with_json
@with_config
def index_info(config: Any, as_json: bool) -> None:
    """List the indexes of the workspace and what each was built from."""
    from pa.tasks.index import list_indexes

    _show(list_indexes(config), as_json)


def _show(indexes: list[dict[str, Any]], as_json: bool) -> None:
    from pa.commands import text_index as describe_index

    if as_json:
        emit({"indexes": indexes})
    else:
        console.out("\n\n".join(map(describe_index.index, indexes)) or "no index yet.")
