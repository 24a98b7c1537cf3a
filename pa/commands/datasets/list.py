"""`pa datasets list`: kinds of datasets and their layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.workspace import Workspace


@click.command("list")
@options.as_json
@options.workspace
def list_datasets(workspace: Workspace, as_json: bool) -> None:
    """List the kinds of dataset with their layouts, and the configured datasets."""
    from pa.data.datasets import DATASETS

    config = workspace.config
    configured = {name: str(config.path(d.root)) for name, d in config.settings.datasets.items()}
    if as_json:
        kinds = {name: DATASETS[name].layout for name in DATASETS}
        options.emit({"kinds": kinds, "configured": configured})
        return
    for name in DATASETS:
        console.out(f"{name}\n{DATASETS[name].layout}\n")
    lines = "\n".join(f"  {name}  {root}" for name, root in configured.items())
    console.out(f"configured in {config.file}:\n{lines or '  none'}")
