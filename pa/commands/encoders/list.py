"""`pa encoders list`: the encoders of the registry and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.workspace import Workspace


@click.command("list")
@options.as_json
@options.workspace
def list_encoders(workspace: Workspace, as_json: bool) -> None:
    """List the encoders, their files, and the checkpoints of this workspace."""
    from pa.extract.encoders import ENCODERS

    checkpoints = {}
    for name in ENCODERS:
        path = workspace.checkpoint(name)
        checkpoints[name] = path if path is not None and path.is_file() else None
    if not as_json:
        console.out(_table(checkpoints))
        return
    entries = [
        {**asdict(ENCODERS[name].card), "checkpoint": str(path) if path else None}
        for name, path in checkpoints.items()
    ]
    options.emit({"encoders": entries})


def _table(checkpoints: Mapping[str, Path | None]) -> str:
    from pa.extract.encoders import ENCODERS

    cards = [ENCODERS[name].card for name in checkpoints]
    rows = [
        [
            card.name,
            card.method,
            f"{card.transform.resize} {card.transform.interpolation}",
            "yes" if any(source.projector for source in card.sources) else "no",
            card.licence,
            str(checkpoints[card.name] or "missing"),
        ]
        for card in cards
    ]
    heads = ["encoder", "method", "resize", "projector", "licence", "checkpoint"]
    lines = [console.table(heads, rows)]
    lines.append("\nfiles (pa encoders fetch NAME downloads the first):")
    lines += [
        f"  {card.name:<7} {source.file}: {source.url or source.note}"
        for card in cards
        for source in card.sources
    ]
    lines.append("\nAny timm network is available as timm/<model>. Cards: docs/encoders.md")
    return "\n".join(lines)
