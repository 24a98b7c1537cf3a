"""Every number of a report as tables, for CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from pa.report.cells import Cell, published
from pa.report.measured import Measured
from pa.report.report import Report, source_name

# Types of the columns that do not hold text. An empty column has its type, too.
_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("value", "low", "high", "delta", "chance", "prior"), pl.Float64),
    **dict.fromkeys(("low_fixed_gallery", "high_fixed_gallery", "published"), pl.Float64),
    **dict.fromkeys(("above", "within", "difference"), pl.Float64),
    **dict.fromkeys(("table", "n", "n_images"), pl.Int64),
    **dict.fromkeys(("claim_comparisons", "claim_measured", "claim_needed"), pl.Int64),
    **dict.fromkeys(("in_the_papers_setting", "shown_in_table"), pl.Boolean),
}
_OF_CELL = ("key", "table", "encoder", "dataset", "task", "probe", "representation", "metric")
_OF_MEASURED = ("value", "interval_method", "chance", "n", "unit", "n_images", "stored_as", "model")
_COLUMNS = {
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
        for selected in sorted(results, key=lambda selected: selected.ours.protocol.order):
            yield {**_line(cell, selected.ours), "state": "shown", "why": selected.why}
            for other in selected.others:
                yield {**_line(cell, other), "state": "not shown", "why": ""}
        if not results:
            yield {**_fields(cell, _OF_CELL), "published": cell.value, "state": "not measured"}


def _fields(source: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _line(cell: Cell, ours: Measured) -> dict[str, Any]:
    low, high = ours.interval or (None, None)
    return {
        **_fields(cell, _OF_CELL),
        **_fields(ours, _OF_MEASURED),
        "published": cell.value,
        "protocol": ours.protocol.key,
        "low": low,
        "high": high,
        "delta": ours.value - cell.value,
        "weights_sha256": ours.source.result.tested.weights_sha256,
        "in_the_papers_setting": ours.is_papers,
        "remarks": "; ".join(mark.text for mark in ours.marks),
        "notes": "; ".join(note.text for note in ours.notes),
        "stores": ", ".join(f"{store.role} {store.fingerprint}" for store in ours.stores),
        "file": ours.file,
        "digest": ours.source.result.digest,
        "written": ours.source.written.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": ours.command,
    }


def _claims(report: Report) -> Iterator[dict[str, Any]]:
    for judgement in (j for judged in report.judged for j in (judged.published, *judged.ours)):
        claim = judgement.claim
        for outcome in judgement.outcomes:
            comparison, (low, high) = outcome.comparison, outcome.interval or (None, None)
            yield {
                "claim": claim.id,
                "says": claim.says,
                "where": claim.where,
                "reading": claim.reading,
                "by": source_name(judgement.protocol),
                "claim_verdict": judgement.verdict,
                "claim_comparisons": len(judgement.outcomes),
                "claim_measured": judgement.measured,
                "claim_needed": claim.needed,
                "first": comparison.first.key,
                "second": comparison.second.key,
                "above": None if comparison.within is not None else comparison.above,
                "within": comparison.within,
                "difference": outcome.value,
                "low": low,
                "high": high,
                "basis": outcome.basis,
                "verdict": outcome.verdict,
                "remarks": "; ".join(judgement.marks),
            }


def _results(report: Report) -> Iterator[dict[str, Any]]:
    for item in report.listed:
        low, high = item.interval or (None, None)
        low_fixed, high_fixed = item.fixed_gallery or (None, None)
        yield {
            **vars(item),
            "low": low,
            "high": high,
            "low_fixed_gallery": low_fixed,
            "high_fixed_gallery": high_fixed,
            "cells": ", ".join(cell.key for cell in item.cells),
            "shown_in_table": item.is_selected,
        }
