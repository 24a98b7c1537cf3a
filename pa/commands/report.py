"""`pa report`: what the workspace holds of the paper, written as a page and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import MissingError, UnknownNameError, UsageError
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.report.cells import Cell
    from pa.report.report import Report

FOLDER = "reports"
FORMATS = ("html", "md", "latex", "csv", "parquet")


@dataclass(frozen=True)
class ReportRequest:
    """What `pa report` was asked: the folder to write to (None: reports/ of the workspace), and
    the formats (none named: all of them)."""

    out: Path | None = None
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise UnknownNameError("format of a report", name, FORMATS)


@dataclass(frozen=True, eq=False)
class Written:
    """A report, and the files it was written to."""

    report: Report
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.report.to_json(), "files": [str(path) for path in self.files]}


def write_report(config: Config, request: ReportRequest, progress: Progress) -> Written:
    """Read every result of the workspace, judge, and write the report.

    A result that cannot be read is left out and listed in the report. Raises `MissingError` where
    there is no workspace or no result, `UsageError` where the folder to write to is a file.
    """
    from pa.report.found import read_workspace
    from pa.report.report import build

    out = request.out or config.workspace / FOLDER
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder. Name one with --out DIR; it is made if need be.")
    workspace = read_workspace(config.workspace, config.results, config.features)
    if not workspace.results and not workspace.damaged:
        raise MissingError(
            f"there are no results in {config.results}. `pa report --missing` prints the commands "
            f"that make all of the paper's; or name another workspace with --workspace DIR."
        )
    report = build(workspace, config.figures, progress=progress)
    files: list[Path] = []
    formats = [name for name in FORMATS if name in (request.formats or FORMATS)]
    progress.start("writing the report", len(formats), "formats")
    try:
        for name in formats:
            files += _WRITERS[name](report, out)
            progress.advance(1)
    finally:
        progress.stop()
    return Written(report, tuple(files))


# -- what is missing ------------------------------------------------------------------------------

SCRIPT = """\
#!/bin/sh
# {n} of {total} cells of the paper are not measured in {workspace}.
# Each command skips what is done already. `pa submit COMMAND` sends one to a cluster.
set -e
cd {place}
"""


@dataclass(frozen=True, eq=False)
class Missing:
    """The cells without a number of ours, and the commands that fill them, each once."""

    workspace: Path
    cells: tuple[Cell, ...]
    commands: Mapping[str, tuple[Cell, ...]]

    def script(self) -> str:
        """A shell script: every command below the cells that it is the last step of."""
        import shlex

        from pa.report.cells import published

        head = SCRIPT.format(
            n=len(self.cells),
            total=len(published()),
            workspace=" ".join(str(self.workspace).split()),
            place=shlex.quote(str(self.workspace)),
        )
        lines = [head]
        for command, cells in self.commands.items():
            lines += [f"# {cell.source}" for cell in cells]
            lines.append(command)
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        return {
            "missing": [cell.key for cell in self.cells],
            "commands": [
                {"command": command, "fills": [cell.key for cell in cells]}
                for command, cells in self.commands.items()
            ],
        }


def missing_cells(config: Config, progress: Progress) -> Missing:
    """The cells that no result fills, and the public commands that do.

    Raises `MissingError` where there is no workspace; a workspace without results lacks them all.
    """
    from pa.paper.steps import commands_for
    from pa.report.cells import published
    from pa.report.found import read_workspace
    from pa.report.measured import measured_in

    workspace = read_workspace(config.workspace, config.results, config.features)
    if workspace.damaged:
        progress.note(f"{len(workspace.damaged)} files could not be read: see `pa report`.")
    answered = {one.question.key for one in measured_in(workspace)}
    cells = tuple(cell for cell in published() if cell.question not in answered)
    fills: dict[str, list[Cell]] = {}
    for cell in cells:
        commands: Sequence[str] = commands_for(cell)
        for place, command in enumerate(commands, start=1):
            filled = fills.setdefault(command, [])
            if place == len(commands):
                filled.append(cell)
    return Missing(config.workspace, cells, {c: tuple(found) for c, found in fills.items()})


# -- files ----------------------------------------------------------------------------------------


def _html(report: Report, out: Path) -> list[Path]:
    from pa.report.html.page import page

    return [_text(out / "report.html", page(report))]


def _markdown(report: Report, out: Path) -> list[Path]:
    from pa.report.markdown import markdown

    return [_text(out / "report.md", markdown(report))]


def _latex(report: Report, out: Path) -> list[Path]:
    from pa.report.latex import latex

    return [_text(out / "tables.tex", latex(report))]


def _csv(report: Report, out: Path) -> list[Path]:
    from pa.report.numbers import cells_table, claims_table

    tables = {"cells": cells_table(report), "claims": claims_table(report)}
    return [_text(out / f"{name}.csv", table.write_csv()) for name, table in tables.items()]


def _parquet(report: Report, out: Path) -> list[Path]:
    from pa.data.tables import write_parquet
    from pa.report.numbers import cells_table, claims_table

    tables = {"cells": cells_table(report), "claims": claims_table(report)}
    paths = []
    for name, table in tables.items():
        write_parquet(path := out / f"{name}.parquet", table)
        paths.append(path)
    return paths


def _text(path: Path, text: str) -> Path:
    from pa.data.files import write_text

    write_text(path, text)
    return path


_WRITERS: Mapping[str, Callable[[Report, Path], list[Path]]] = {
    "html": _html,
    "md": _markdown,
    "latex": _latex,
    "csv": _csv,
    "parquet": _parquet,
}
