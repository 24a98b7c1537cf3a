"""`pa encoders list`: the encoders of the registry and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.extract.encoders.family import EncoderCard
    from pa.workspace import Workspace


@click.command("list")
@options.as_json
@options.workspace
def list_encoders(workspace: Workspace, as_json: bool) -> None:
    """List the encoders, their files, and the checkpoints of this workspace."""
    from pa.extract.encoders import ENCODERS

    cards = [ENCODERS[name].card for name in ENCODERS]
    paths = [workspace.checkpoint(name) for name in ENCODERS]
    files = [str(path) if path is not None and path.is_file() else None for path in paths]
    if as_json:
        pairs = zip(cards, files, strict=True)
        options.emit({"encoders": [{**asdict(card), "checkpoint": file} for card, file in pairs]})
    else:
        console.out(_table(cards, files))


def _table(cards: Sequence[EncoderCard], files: Sequence[str | None]) -> str:
    rows = [
        [
            card.name,
            card.method,
            f"{card.transform.resize} {card.transform.interpolation}",
            "yes" if any(source.projector for source in card.sources) else "no",
            card.licence,
            file or "missing",
        ]
        for card, file in zip(cards, files, strict=True)
    ]
    heads = ["encoder", "method", "resize", "projector", "licence", "checkpoint"]
    lines = [console.table(heads, rows), "\nfiles (pa encoders fetch NAME downloads the first):"]
    lines += [
        f"  {card.name:<7} {source.file}: {source.url or source.note}"
        for card in cards
        for source in card.sources
    ]
    lines.append("\nAny timm network is available as timm/<model>. Cards: docs/encoders.md")
    return "\n".join(lines)
