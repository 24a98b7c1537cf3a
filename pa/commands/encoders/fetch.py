"""`pa encoders fetch`: download an official checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.workspace import Workspace


@click.command()
@click.argument("name")
@click.option("--file", help="File to download. Default: the most complete one.")
@options.as_json
@options.workspace
def fetch(workspace: Workspace, name: str, file: str | None, as_json: bool) -> None:
    """Download an encoder's official checkpoint into the workspace.

    An interrupted download resumes. Without a network, the message states which file to put where.
    """
    from pa.extract.encoders import ENCODERS
    from pa.extract.fetch import choose_source, fetch

    source = choose_source(ENCODERS[name].card, file)
    path = fetch(source, workspace.config.checkpoints / name, workspace.progress)
    if as_json:
        options.emit({"encoder": name, "checkpoint": str(path)})
    else:
        console.out(f"{path}\ncheck it with: pa encoders check {name}")
