"""A report as text for the terminal: what is measured, the claims, the files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pa.commands.console import table
from pa.report.visible import one_line, visible

if TYPE_CHECKING:
    from pa.report.report import Report
    from pa.tasks.report import Written

DAMAGED_SHOWN = 8


def written(made: Written) -> str:
    """One paragraph each: cells, claims, those of them that are measured, what could not be read,
    files."""
    report = made.report
    parts = [_cells(report), _results(report), _claims(report), _measured_claims(report)]
    parts.append(_damaged(report))
    parts.append("\n".join(visible(path) for path in made.files))
    return "\n\n".join(part for part in parts if part)


def _cells(report: Report) -> str:
    from pa.report.cells import published, tables

    there = {cell.key for cell in report.measured_cells}
    theirs = {cell.key for cell in report.papers_cells}
    rows = [
        [
            f"Table {one.number}",
            str(len(one.cells)),
            str(sum(cell.key in there for cell in one.cells)),
            str(sum(cell.key in theirs for cell in one.cells)),
            one_line("; ".join(protocol.title for protocol in report.protocols(one))),
        ]
        for one in tables()
    ]
    rows.append(["all", str(len(published())), str(len(there)), str(len(theirs)), ""])
    heads = ["", "cells", "measured", "in the paper's setting", "protocols"]
    text = table(heads, rows, " rrr")
    if marked := sum(not taken.ours.is_papers for taken in report.taken.values()):
        text += (
            f"\n{marked} of {len(report.taken)} numbers are not in the paper's setting: another "
            f"model, a part of the images or a changed recipe; the report says which."
        )
    return text


def _results(report: Report) -> str:
    """How many scores are listed, and how many of them the paper's tables show."""
    shown = sum(one.is_selected for one in report.listed)
    tasks = Counter(found.result.task for found in report.workspace.results)
    return (
        f"all results: {len(report.listed)} scores of {len(report.workspace.results)} results "
        f"({', '.join(f'{n} {task}' for task, n in sorted(tasks.items()))}); {shown} of the "
        f"scores are shown in tables of the paper"
    )


def _claims(report: Report) -> str:
    from pa.report.judging import VERDICTS
    from pa.report.numbers import source_name
    from pa.report.report import all_protocols

    rows = []
    for source in (None, *all_protocols(report)):
        tally = report.tally(source)
        rows.append([one_line(source_name(source)), *(str(tally[verdict]) for verdict in VERDICTS)])
    return table([f"{len(report.judged)} claims by", *VERDICTS], rows, " rrrr")


def _measured_claims(report: Report) -> str:
    """A line for each claim with a comparison that is measured, by each protocol of ours."""
    from pa.report.numbers import source_name

    rows = [
        [
            by.verdict + ("*" if by.marks else ""),
            f"{by.measured} of {len(by.outcomes)}",
            str(by.count("holds")),
            str(by.count("does not hold")),
            str(by.count("undecided")),
            str(by.claim.needed),
            one_line(source_name(by.protocol)),
            one.claim.says,
        ]
        for one in report.judged
        for by in one.ours
        if by.measured
    ]
    if not rows:
        return ""
    heads = ["verdict", "measured", "hold", "do not", "undecided", "needed", "by", "claim"]
    text = table(heads, rows, " rrrrr")
    if any(by.marks for one in report.judged for by in one.ours):
        text += "\n* from numbers that are not in the paper's setting"
    if lost := sum(by.without_pairs for one in report.judged for by in one.ours):
        text += (
            f"\n{lost} comparisons took an interval without pairs: scores of queries are damaged "
            f"or gone"
        )
    return text


def _damaged(report: Report) -> str:
    if not report.damaged:
        return ""
    lines = [
        f"  {one_line(report.workspace.relative(one.path))}: {one_line(one.reason)}"
        for one in report.damaged[:DAMAGED_SHOWN]
    ]
    if (more := len(report.damaged) - DAMAGED_SHOWN) > 0:
        lines.append(f"  … and {more} more, in the report")
    return "\n".join([f"files that could not be read: {len(report.damaged)}", *lines])
