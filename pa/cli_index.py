"""`pa index`: parse, call one function of `pa.commands.index`, print."""

from __future__ import annotations

from typing import Any

import click

from pa import console, describe_index
from pa.options import choosing_store, emit, with_config, with_json


@click.group()
def index() -> None:
    """Build and inspect the vector indexes of stores."""


@index.command("build")
@click.option("--encoder", help="Encoder of the store.")
@click.option("--representation", help="cls, pooled, projected; default pooled.")
@choosing_store
@click.option("--index", "factory", help="FAISS factory string; default SQfp16, exact.")
@with_json
@with_config
def index_build(config: Any, as_json: bool, **given: Any) -> None:
    """Build the index of a store, replacing the one that is there.

    \b
    pa index build
    pa index build --representation cls --index IVF256,Flat@nprobe=16
    """
    from pa.commands.index import IndexRequest, build_index

    info = build_index(config, IndexRequest(**given), console.progress())
    if as_json:
        emit(info)
    else:
        console.out(describe_index.index(info))


@index.command("info")
@with_json
@with_config
def index_info(config: Any, as_json: bool) -> None:
    """List the indexes of the workspace and what each was built from."""
    from pa.commands.index import list_indexes

    found = list_indexes(config)
    if as_json:
        emit({"indexes": found})
    else:
        console.out("\n\n".join(map(describe_index.index, found)) or "no index yet.")
