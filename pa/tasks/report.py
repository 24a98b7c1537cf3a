"""`pa report`: what the workspace holds of the paper, written as a page and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import MissingError, UnknownNameError
from pa.progress import Progress

if TYPE_CHECKING:
    from polars import DataFrame

    from pa.report.cells import Cell
    from pa.report.report import Report
    from pa.study.script import Line

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
    there is no workspace or no result, `StorageError` where the files cannot be written: then none
    of them is.
    """
    from pa.report.collection import collect_results
    from pa.report.report import build
    from pa.report.writing import write_all

    out = request.out or config.workspace / FOLDER
    workspace = collect_results(config.workspace, config.results, config.features)
    if not workspace.results and not workspace.damaged:
        raise MissingError(
            f"there are no results in {config.results}. `pa report --missing` prints the commands "
            f"that make all of the paper's; or name another workspace with --workspace DIR."
        )
    report = build(workspace, config.figures, progress=progress)
    files: dict[str, bytes] = {}
    formats = [name for name in FORMATS if name in (request.formats or FORMATS)]
    progress.start("writing the report", len(formats), "formats")
    try:
        for name in formats:
            files |= _WRITERS[name](report, out)
            progress.advance(1)
    finally:
        progress.stop()
    return Written(report, tuple(write_all(out, files)))


# -- what is missing ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Missing:
    """The cells without a number of ours, and the commands that fill them, each once: where the
    first cell wants it, with the cells that it is the last step of."""

    workspace: Path
    cells: tuple[Cell, ...]
    lines: tuple[Line, ...]

    def script(self) -> str:
        """A shell script: a block for each encoder and dataset, each command below the cells that
        it is the last step of."""
        from pa.report.cells import published
        from pa.study.script import shell_script

        about = (
            f"{len(self.cells)} of {len(published())} cells of the paper are not measured in "
            f"{self.workspace}.",
            "Each command skips what is done already. `pa submit COMMAND` sends one to a cluster.",
        )
        return shell_script(about, self.workspace, self.lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "missing": [cell.key for cell in self.cells],
            "commands": [
                {
                    "command": line.command,
                    "encoder": line.encoder,
                    "dataset": line.dataset,
                    "fills": [cell.key for cell in line.fills],
                }
                for line in self.lines
            ],
        }


def missing_cells(config: Config, progress: Progress) -> Missing:
    """The cells that no result fills, and the public commands that do.

    Raises `MissingError` where there is no workspace; a workspace without results lacks them all.
    """
    from pa.report.cells import published
    from pa.report.collection import collect_results
    from pa.report.measured import measured_in
    from pa.study.script import Line
    from pa.study.steps import commands_for

    workspace = collect_results(config.workspace, config.results, config.features)
    if workspace.damaged:
        progress.note(f"{len(workspace.damaged)} files could not be read: see `pa report`.")
    answered = {one.question for one in measured_in(workspace)}
    cells = tuple(cell for cell in published() if cell.question not in answered)
    wanted: dict[str, tuple[Cell, list[Cell]]] = {}
    for cell in cells:
        *before, last = commands_for(cell)
        for command in before:
            wanted.setdefault(command, (cell, []))
        wanted.setdefault(last, (cell, []))[1].append(cell)
    lines = tuple(
        Line(command, first.encoder, first.dataset, tuple(filled))
        for command, (first, filled) in wanted.items()
    )
    return Missing(config.workspace, cells, lines)


# -- files ----------------------------------------------------------------------------------------


def _html(report: Report, _: Path) -> dict[str, bytes]:
    from pa.report.html.page import page

    return {"report.html": _utf8(page(report))}


def _markdown(report: Report, out: Path) -> dict[str, bytes]:
    from pa.report.markdown import markdown
    from pa.report.paper_figures import markdown_figures

    figures = ["## Figures", *markdown_figures(report.figures, out)]
    return {"report.md": _utf8(markdown(report) + "\n" + "\n\n".join(figures) + "\n")}


def _latex(report: Report, out: Path) -> dict[str, bytes]:
    from pa.report.latex import latex
    from pa.report.paper_figures import latex_figures

    figures = latex_figures(report.figures, out, report.version)
    return {"tables.tex": _utf8(latex(report)), "figures.tex": _utf8(figures)}


def _csv(report: Report, _: Path) -> dict[str, bytes]:
    return {f"{name}.csv": _utf8(table.write_csv()) for name, table in _tables(report).items()}


def _parquet(report: Report, _: Path) -> dict[str, bytes]:
    from pa.data.tables import parquet_bytes

    return {f"{name}.parquet": parquet_bytes(table) for name, table in _tables(report).items()}


def _tables(report: Report) -> dict[str, DataFrame]:
    from pa.report.numbers import cells_table, claims_table, results_table

    return {
        "cells": cells_table(report),
        "claims": claims_table(report),
        "results": results_table(report),
    }


def _utf8(text: str) -> bytes:
    """A file's name need not be text; what of it is none is written as its code."""
    return text.encode("utf-8", "backslashreplace")


_WRITERS: Mapping[str, Callable[[Report, Path], dict[str, bytes]]] = {
    "html": _html,
    "md": _markdown,
    "latex": _latex,
    "csv": _csv,
    "parquet": _parquet,
}
