"""Commands as a shell script: a block for each encoder and dataset, every command once."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pa.report.cells import Cell, dataset_titles, encoders

# A command that left out images which cannot be read ends with 6, and what follows may go on.
HEAD = """\
set -e
cd {folder}
pa() { command pa "$@" || { code=$?; [ "$code" -eq 6 ] || exit "$code"; }; }
"""


@dataclass(frozen=True)
class Line:
    """A command, the encoder and dataset whose numbers want it (None where it is about all), and
    the cells that it is the last step of."""

    command: str
    encoder: str | None
    dataset: str | None
    fills: tuple[Cell, ...] = ()

    @property
    def title(self) -> str:
        """The heading of its block: "MoCo v3 on CUB-200-2011"."""
        if self.encoder is None or self.dataset is None:
            return "all of them"
        known = encoders().get(self.encoder)
        encoder = self.encoder if known is None else known.title
        return f"{encoder} on {dataset_titles().get(self.dataset, self.dataset)}"


def shell_script(about: Sequence[str], folder: Path, lines: Iterable[Line]) -> str:
    """A POSIX shell script that runs the commands in `folder` and stops at the first that fails.

    `about` are comments for its head. Blocks stand in the order of their first lines, and the
    lines of a block in theirs; a command that stood before is left out, so that each stands where
    it is wanted first.
    """
    blocks: dict[str, list[Line]] = {}
    seen: dict[str, Line] = {}
    for line in lines:
        if seen.setdefault(line.command, line) is line:
            blocks.setdefault(line.title, []).append(line)
    head = HEAD.replace("{folder}", shlex.quote(str(folder)))
    parts = ["\n".join(["#!/bin/sh", *(_comment(said) for said in about), head])]
    for title, members in blocks.items():
        shown = [_comment(f"-- {title} --")]
        for line in members:
            shown += [_comment(cell.sentence) for cell in line.fills]
            shown.append(line.command)
        parts.append("\n".join(shown) + "\n")
    return "\n".join(parts)


def _comment(said: str) -> str:
    """On one line, whatever is in it: a second one would be run."""
    return f"# {' '.join(said.split())}"
