"""Commands as a shell script, with a block for each encoder and dataset."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pa.report.cells import Cell, cell, dataset_titles, encoders, published
from pa.report.collection import collect_results
from pa.report.measured import measured_in
from pa.study.plan import Study
from pa.study.steps import commands_for
from pa.workspace import Workspace

# Exit code 6 means that unreadable images were left out: what follows may run.
HEAD = """\
set -e
cd {folder}
pa() { command pa "$@" || { code=$?; [ "$code" -eq 6 ] || exit "$code"; }; }
"""


@dataclass(frozen=True)
class ScriptLine:
    """A command, the encoder and dataset it is for (None: all), and the cells that it fills."""

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


def shell_script(about: Sequence[str], folder: Path, lines: Iterable[ScriptLine]) -> str:
    """Return a POSIX shell script that runs the commands in `folder` and stops at the first error.

    `about` are comments at its head. Blocks are in the order of their first lines; of a repeated
    command only the first occurrence is kept.
    """
    blocks: dict[str, list[ScriptLine]] = {}
    seen: dict[str, ScriptLine] = {}
    for line in lines:
        if seen.setdefault(line.command, line) is line:
            blocks.setdefault(line.title, []).append(line)
    head = HEAD.replace("{folder}", shlex.quote(str(folder)))
    parts = ["\n".join(["#!/bin/sh", *(_comment(text) for text in about), head])]
    for title, members in blocks.items():
        shown = [_comment(f"-- {title} --")]
        for line in members:
            shown += [_comment(filled.sentence) for filled in line.fills]
            shown.append(line.command)
        parts.append("\n".join(shown) + "\n")
    return "\n".join(parts)


def _comment(text: str) -> str:
    """Return a comment on one line: the shell would run a second line."""
    return f"# {' '.join(text.split())}"


def study_script(workspace: Workspace, study: Study) -> str:
    """Return the remaining steps of a study as a shell script."""
    lines = [
        ScriptLine(step.command, step.encoder, step.dataset, tuple(cell(key) for key in step.fills))
        for step in study.remaining
    ]
    return shell_script(["The steps of the study that are left, in order."], workspace.path, lines)


@dataclass(frozen=True, eq=False)
class MissingCells:
    """The cells without a measured value, and the commands that fill them, each once."""

    workspace: Path
    cells: tuple[Cell, ...]
    lines: tuple[ScriptLine, ...]

    def script(self) -> str:
        """Return the commands as a shell script."""
        about = (
            f"{len(self.cells)} of {len(published())} cells of the paper are not measured in "
            f"{self.workspace}.",
            "Each command skips what is done already. `pa submit COMMAND` sends one to a cluster.",
        )
        return shell_script(about, self.workspace, self.lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "missing": [missing.key for missing in self.cells],
            "commands": [
                {
                    "command": line.command,
                    "encoder": line.encoder,
                    "dataset": line.dataset,
                    "fills": [filled.key for filled in line.fills],
                }
                for line in self.lines
            ],
        }


def missing_cells(workspace: Workspace) -> MissingCells:
    """Return the cells that no result fills, and the commands that fill them.

    Raises `MissingError` if the workspace does not exist.
    """
    config = workspace.config
    collection = collect_results(config.workspace, config.results, config.features)
    if collection.damaged:
        workspace.progress.note(
            f"{len(collection.damaged)} files could not be read: see `pa report`."
        )
    answered = {measured.question for measured in measured_in(collection)}
    cells = tuple(item for item in published() if item.question not in answered)
    commands: dict[str, tuple[Cell, list[Cell]]] = {}  # of the first cell that needs it
    for missing in cells:
        *before, last = commands_for(missing)
        for command in before:
            commands.setdefault(command, (missing, []))
        commands.setdefault(last, (missing, []))[1].append(missing)
    lines = tuple(
        ScriptLine(command, first.encoder, first.dataset, tuple(filled))
        for command, (first, filled) in commands.items()
    )
    return MissingCells(config.workspace, cells, lines)
