"""Commands as a shell script, with a block for each encoder and dataset."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pa.report.cells import Cell, cell, dataset_titles, encoders, published
from pa.report.collection import collect_results
from pa.report.measured import measured_in
from pa.study.plan import Study
from pa.study.steps import Step, steps_for
from pa.workspace import Workspace

# Exit code 6 means that unreadable images were left out: what follows may run.
HEAD = """\
set -e
cd {folder}
pa() { command pa "$@" || { code=$?; [ "$code" -eq 6 ] || exit "$code"; }; }
"""


def shell_script(about: Sequence[str], folder: Path, steps: Iterable[Step]) -> str:
    """Return a POSIX shell script that runs the steps in `folder` and stops at the first error.

    `about` are comments at its head. Blocks, one for each encoder and dataset, are in the order of
    their first steps.
    """
    blocks: dict[str, list[str]] = {}
    for step in steps:
        title = "all of them"
        if step.encoder is not None and step.dataset is not None:
            known = encoders().get(step.encoder)
            encoder = step.encoder if known is None else known.title
            title = f"{encoder} on {dataset_titles().get(step.dataset, step.dataset)}"
        block = blocks.setdefault(title, [_comment(f"-- {title} --")])
        block += [_comment(cell(key).sentence) for key in step.fills]
        block.append(step.command)
    head = HEAD.replace("{folder}", shlex.quote(str(folder)))
    parts = ["\n".join(["#!/bin/sh", *map(_comment, about), head])]
    return "\n".join([*parts, *("\n".join(lines) + "\n" for lines in blocks.values())])


def _comment(text: str) -> str:
    """Return a comment on one line: the shell would run a second line."""
    return f"# {' '.join(text.split())}"


def study_script(workspace: Workspace, study: Study) -> str:
    """Return the remaining steps of a study as a shell script."""
    about = ["The steps of the study that are left, in order."]
    return shell_script(about, workspace.path, study.remaining)


@dataclass(frozen=True, eq=False)
class MissingCells:
    """The cells without a measured value, and the steps that fill them, each once."""

    workspace: Path
    cells: tuple[Cell, ...]
    steps: tuple[Step, ...]

    def script(self) -> str:
        """Return the commands as a shell script."""
        about = (
            f"{len(self.cells)} of {len(published())} cells of the paper are not measured in "
            f"{self.workspace}.",
            "Each command skips what is done already. `pa submit COMMAND` sends one to a cluster.",
        )
        return shell_script(about, self.workspace, self.steps)

    def to_json(self) -> dict[str, Any]:
        commands = [
            {name: getattr(step, name) for name in ("command", "encoder", "dataset", "fills")}
            for step in self.steps
        ]
        return {"missing": [missing.key for missing in self.cells], "commands": commands}


def missing_cells(workspace: Workspace) -> MissingCells:
    """Return the cells that no result fills, and the steps that fill them.

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
    missing = {item.key for item in cells}
    steps = {step.command: step for item in cells for step in steps_for(item)}
    # A step is listed with the missing ones of its cells only.
    kept = (
        replace(step, fills=tuple(key for key in step.fills if key in missing))
        for step in steps.values()
    )
    return MissingCells(config.workspace, cells, tuple(kept))
