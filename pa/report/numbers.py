"""Every number of a report as tables, for CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from pa.report.cells import published
from pa.report.report import Report, source_name
from pa.report.selection import SelectedResult

_COLUMNS = {  # in their order
    "cells": """
        key table encoder dataset task probe representation metric published state protocol value
        low high interval_method delta chance n unit n_images stored_as model weights_sha256
        in_the_papers_setting remarks notes why stores file digest written command
    """,
    "claims": """
        claim says where reading by claim_verdict claim_comparisons claim_measured claim_needed
        first second above within difference low high basis verdict remarks
    """,
    "results": """
        task score data encoder representation value low high interval_method low_fixed_gallery
        high_fixed_gallery chance prior n unit n_images protocol cells shown_in_table file
    """,
}

# Types of the columns that do not hold text, so that an empty column has one, too.
_COUNTS = "table n n_images claim_comparisons claim_measured claim_needed"
_FLAGS = "in_the_papers_setting shown_in_table"
_REALS = """
    published value low high delta chance prior low_fixed_gallery high_fixed_gallery above within
    difference
"""
_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(_COUNTS.split(), pl.Int64),
    **dict.fromkeys(_FLAGS.split(), pl.Boolean),
    **dict.fromkeys(_REALS.split(), pl.Float64),
}


def tables_of(report: Report) -> dict[str, pl.DataFrame]:
    """Return every number of a report as tables.

    Values are in percent and points, as in the paper; `low` and `high` are ends of intervals.

    `cells` has a row for each cell and result: `state` is "shown" for the result in the table and
    "not shown" for others. A cell without a result has one row, "not measured". `claims` has a row
    for each comparison of each claim, by the paper's numbers and by ours of each protocol.
    `results` has a row for each score of every result.
    """
    rows = {"cells": _cells(report), "claims": _claims(report), "results": _results(report)}
    return {
        name: pl.DataFrame(
            list(rows[name]),
            schema={column: _TYPES.get(column, pl.String) for column in columns.split()},
            orient="row",
        )
        for name, columns in _COLUMNS.items()
    }


def _cells(report: Report) -> Iterator[dict[str, Any]]:
    for cell in published():
        results = [selected for (key, _), selected in report.selected.items() if key == cell.key]
        # A cell has a result for each protocol; these stay apart in every format.
        for selected in sorted(results, key=lambda selected: selected.ours.protocol.order):
            yield {**_line(selected), "state": "shown"}
            for other in selected.others:
                yield {**_line(SelectedResult(cell, other, "", ())), "state": "not shown"}
        if not results:
            yield {**cell.to_json(), "published": cell.value, "state": "not measured"}


def _line(selected: SelectedResult) -> dict[str, Any]:
    ours, fields = selected.ours, selected.to_json()
    return {
        **fields,
        **_ends(ours.interval),
        "published": selected.cell.value,
        "interval_method": ours.interval_method,
        "chance": ours.chance,
        "unit": ours.unit,
        "stored_as": ours.stored_as,
        "weights_sha256": ours.source.result.tested.weights_sha256,
        "remarks": "; ".join(fields["marks"]),
        "notes": "; ".join(fields["notes"]),
        "stores": ", ".join(f"{role} {name}" for role, name in ours.stores.items()),
        "digest": ours.source.result.digest,
        "written": ours.source.written.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _ends(interval: tuple[float, float] | None, suffix: str = "") -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"low{suffix}": low, f"high{suffix}": high}


def _claims(report: Report) -> Iterator[dict[str, Any]]:
    for judgement in (j for judged in report.judged for j in (judged.published, *judged.ours)):
        claim = judgement.claim
        of_claim = {
            "claim": claim.id,
            "says": claim.says,
            "where": claim.where,
            "reading": claim.reading,
            "by": source_name(judgement.protocol),
            "claim_verdict": judgement.verdict,
            "claim_comparisons": len(judgement.outcomes),
            "claim_measured": judgement.measured,
            "claim_needed": claim.needed,
            "remarks": "; ".join(judgement.marks),
        }
        for outcome in judgement.outcomes:
            # A comparison has one of the two limits; the other is empty.
            within = outcome.comparison.within
            above = outcome.comparison.above if within is None else None
            limits = {"above": above, "within": within}
            yield {**of_claim, **outcome.to_json(), **limits, **_ends(outcome.interval)}


def _results(report: Report) -> Iterator[dict[str, Any]]:
    for item in report.listed:
        yield {
            **vars(item),
            **_ends(item.interval),
            **_ends(item.fixed_gallery, "_fixed_gallery"),
            "cells": ", ".join(cell.key for cell in item.cells),
            "shown_in_table": item.is_selected,
        }
