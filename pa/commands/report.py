"""`pa report`: compare the results of the workspace with the paper."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.errors import EXIT_PARTLY_DONE, MissingError

if TYPE_CHECKING:
    from pa.report.report import Report
    from pa.workspace import Workspace

FOLDER = "reports"  # of the workspace
DAMAGED_SHOWN = 8  # files in the terminal; the report lists all


@click.command()
@click.option(
    "--out", type=options.PATH, help="Folder to write to. Default: reports/ of the workspace."
)
@click.option(
    "--format",
    "formats",
    callback=options.listed,
    help="Formats, separated by commas: html, md, latex, csv, parquet. Default: all.",
)
@click.option(
    "--missing",
    is_flag=True,
    help="Print the commands that fill the missing cells, as a script; write nothing.",
)
@options.as_json
@options.workspace
def report(
    workspace: Workspace,
    out: Path | None,
    formats: tuple[str, ...],
    missing: bool,
    as_json: bool,
) -> None:
    """Compare the results of the workspace with the paper's tables and claims.

    Writes one HTML page without external files, Markdown, LaTeX tables, and every number as CSV
    and Parquet. Protocols never share a column. Numbers from another model, other images or
    another recipe than the paper's are marked. Exit code 6 means that some result files could not
    be read; the report lists them.

    \b
    pa report
    pa report --format html,csv --out ~/report
    pa report --missing > fill.sh
    """
    if missing:
        from pa.study.script import missing_cells

        if out is not None or formats:
            raise click.UsageError("--missing writes nothing: leave out --out and --format.")
        cells = missing_cells(workspace)
        options.emit(cells.to_json()) if as_json else console.out(cells.script())
        return
    from pa.report.collection import collect_results
    from pa.report.output import write_report
    from pa.report.report import build

    config = workspace.config
    collection = collect_results(config.workspace, config.results, config.features)
    if not collection.results and not collection.damaged:
        raise MissingError(
            f"{config.results} holds no results. `pa report --missing` prints the commands that "
            f"produce all results of the paper; or choose another workspace with --workspace DIR."
        )
    built = build(collection, config.figures, progress=workspace.progress)
    files = write_report(built, out or config.workspace / FOLDER, formats, workspace.progress)
    if as_json:
        options.emit({**built.to_json(), "files": [str(path) for path in files]})
    else:
        console.out(report_text(built, files))
    if built.damaged:
        sys.exit(EXIT_PARTLY_DONE)


def report_text(report: Report, files: Sequence[Path]) -> str:
    """Return the numbers of cells, results, claims and damaged files, and the files written."""
    from pa.report.text import printable

    parts = [_cells(report), _results(report), _claims(report), _measured_claims(report)]
    parts += [_damaged(report), "\n".join(printable(path) for path in files)]
    return "\n\n".join(part for part in parts if part)


def _cells(report: Report) -> str:
    from pa.report.cells import published, tables
    from pa.report.text import one_line

    measured, exact = set(report.measured_cells), set(report.papers_cells)
    rows = []
    for table in tables():
        cells = set(table.cells)
        counts = [len(cells), len(cells & measured), len(cells & exact)]
        protocols = one_line("; ".join(protocol.title for protocol in report.protocols(table)))
        rows.append([f"Table {table.number}", *map(str, counts), protocols])
    counts = [len(published()), len(measured), len(exact)]
    rows.append(["all", *map(str, counts), ""])
    heads = ["", "cells", "measured", "in the paper's setting", "protocols"]
    text = console.table(heads, rows, " rrr")
    if marked := sum(not selected.ours.is_papers for selected in report.selected.values()):
        text += (
            f"\n{marked} of {len(report.selected)} numbers are not in the paper's setting: another "
            f"model, a part of the images or a changed recipe; the report states which."
        )
    return text


def _results(report: Report) -> str:
    shown = sum(listed.is_selected for listed in report.listed)
    tasks = Counter(file.result.task for file in report.collection.results)
    return (
        f"all results: {len(report.listed)} scores of {len(report.collection.results)} results "
        f"({', '.join(f'{n} {task}' for task, n in sorted(tasks.items()))}); {shown} of the "
        f"scores are shown in tables of the paper"
    )


def _claims(report: Report) -> str:
    from pa.report.judging import VERDICTS
    from pa.report.report import source_name
    from pa.report.text import one_line

    rows = [
        [one_line(source_name(source)), *map(str, report.tally(source).values())]
        for source in report.sources
    ]
    return console.table([f"{len(report.judged)} claims by", *VERDICTS], rows, " rrrr")


def _measured_claims(report: Report) -> str:
    """Return a line for each protocol of each claim with a measured comparison."""
    from pa.report.report import source_name
    from pa.report.text import one_line

    rows = [
        [
            judgement.verdict + ("*" if judgement.marks else ""),
            f"{judgement.measured} of {len(judgement.outcomes)}",
            str(judgement.count("holds")),
            str(judgement.count("does not hold")),
            str(judgement.count("undecided")),
            str(judgement.claim.needed),
            one_line(source_name(judgement.protocol)),
            judged.claim.says,
        ]
        for judged in report.judged
        for judgement in judged.ours
        if judgement.measured
    ]
    if not rows:
        return ""
    heads = ["verdict", "measured", "hold", "do not", "undecided", "needed", "by", "claim"]
    lines = [console.table(heads, rows, " rrrrr")]
    if report.has_marked_claims:
        lines.append("* from numbers that are not in the paper's setting")
    return "\n".join([*lines, *filter(None, [report.unpaired_note])])


def _damaged(report: Report) -> str:
    from pa.report.text import one_line

    if not report.damaged:
        return ""
    lines = [
        f"  {one_line(report.collection.relative(file.path))}: {one_line(file.reason)}"
        for file in report.damaged[:DAMAGED_SHOWN]
    ]
    if (more := len(report.damaged) - DAMAGED_SHOWN) > 0:
        lines.append(f"  … and {more} more, in the report")
    return "\n".join([f"files that could not be read: {len(report.damaged)}", *lines])
