"""`pa index info`: list the indexes of a workspace."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.index.stored import IndexInfo
    from pa.workspace import Workspace


@click.command()
@options.as_json
@options.workspace
def info(workspace: Workspace, as_json: bool) -> None:
    """List the indexes of the workspace with their stores, sizes and recall.

    Exit code 5 means that an index is damaged; the others are listed.
    """
    from pa.data.store.find import check_workspace
    from pa.errors import VerificationError
    from pa.index.stored import find_indexes

    check_workspace(workspace.path)
    readable, damaged = [], []
    for path, content in find_indexes(workspace.config.indexes):
        if isinstance(content, VerificationError):
            damaged.append(content)
        else:
            readable.append((path, content))
    show(readable, as_json)
    if damaged:
        raise damaged[0]


def show(indexes: Iterable[tuple[Path, IndexInfo]], as_json: bool) -> None:
    """Print indexes as JSON or as text."""
    if as_json:
        entries = [{**info.to_json(), "path": str(path)} for path, info in indexes]
        options.emit({"indexes": entries})
    else:
        console.out("\n\n".join(_text(*index) for index in indexes) or "no index yet.")


def _text(path: Path, info: IndexInfo) -> str:
    n_bytes = sum(file.bytes for file in info.files.values())  # without index.json
    facts = [f"{info.n} vectors of width {info.dimension}, {console.size(n_bytes)}"]
    if skipped := info.n_bad + info.n_zero:  # rows without a vector to index
        facts.append(f"{skipped} rows skipped (bad images or zero vectors)")
    if (training := info.training) is not None:
        fewer = training.rows < training.advised
        advice = f" (FAISS advises {training.advised})" if fewer else ""
        facts.append(f"trained on {training.rows} rows{advice}")
    return (
        f"{info.store} · {info.representation} · {info.factory} ({info.quality})\n"
        f"  {'; '.join([*facts, str(path)])}"
    )
