"""`pa config`: show the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.workspace import Workspace


@click.group()
def config() -> None:
    """Show the settings."""


@config.command("show")
@options.as_json
@options.workspace
def show(workspace: Workspace, as_json: bool) -> None:
    """Show every setting, its value and its source."""
    settings = workspace.config.explain()
    if as_json:
        options.emit({s.name: {"value": s.value, "source": s.source} for s in settings})
    else:
        rows = [[s.name, "" if s.value is None else str(s.value), s.source] for s in settings]
        console.out(console.table(["setting", "value", "from"], rows))
