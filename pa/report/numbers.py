"""Every number of a report as tables, for CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from pa.report.cells import Cell, published
from pa.report.measured import Measured
from pa.report.protocol import Protocol
from pa.report.report import Report

SELECTED, OTHER, MISSING = "taken", "not taken", "not measured"  # values of `state`

CELLS = {
    "key": pl.String,
    "table": pl.Int64,
    "encoder": pl.String,
    "dataset": pl.String,
    "task": pl.String,
    "probe": pl.String,
    "representation": pl.String,
    "metric": pl.String,
    "published": pl.Float64,
    "state": pl.String,
    "protocol": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "interval_method": pl.String,
    "delta": pl.Float64,
    "chance": pl.Float64,
    "n": pl.Int64,
    "unit": pl.String,
    "n_images": pl.Int64,
    "stored_as": pl.String,
    "model": pl.String,
    "weights_sha256": pl.String,
    "in_the_papers_setting": pl.Boolean,
    "remarks": pl.String,
    "notes": pl.String,
    "why": pl.String,
    "stores": pl.String,
    "file": pl.String,
    "digest": pl.String,
    "written": pl.String,
    "command": pl.String,
}
RESULTS = {
    "task": pl.String,
    "score": pl.String,
    "data": pl.String,
    "encoder": pl.String,
    "representation": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "interval_method": pl.String,
    "low_fixed_gallery": pl.Float64,
    "high_fixed_gallery": pl.Float64,
    "chance": pl.Float64,
    "prior": pl.Float64,
    "n": pl.Int64,
    "unit": pl.String,
    "n_images": pl.Int64,
    "protocol": pl.String,
    "cells": pl.String,
    "shown_in_table": pl.Boolean,
    "file": pl.String,
}
CLAIMS = {
    "claim": pl.String,
    "says": pl.String,
    "where": pl.String,
    "reading": pl.String,
    "by": pl.String,
    "claim_verdict": pl.String,
    "claim_comparisons": pl.Int64,
    "claim_measured": pl.Int64,
    "claim_needed": pl.Int64,
    "first": pl.String,
    "second": pl.String,
    "above": pl.Float64,
    "within": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "basis": pl.String,
    "verdict": pl.String,
    "remarks": pl.String,
}


def tables_of(report: Report) -> dict[str, pl.DataFrame]:
    """Return every number of a report as tables.

    Values are in percent and points, as in the paper; `low` and `high` are ends of intervals.

    `cells` has a row for each cell and result, selected or not; a cell without a result has one
    row. `claims` has a row for each comparison of each claim, by the paper's numbers and by ours
    of each protocol. `results` has a row for each score of every result.
    """
    rows = {
        "cells": (CELLS, _cell_rows(report)),
        "claims": (CLAIMS, _claim_rows(report)),
        "results": (RESULTS, _result_rows(report)),
    }
    return {
        name: pl.DataFrame(list(of_table), schema=schema, orient="row")
        for name, (schema, of_table) in rows.items()
    }


def _result_rows(report: Report) -> Iterator[dict[str, Any]]:
    for item in report.listed:
        low, high = item.interval or (None, None)
        low_fixed, high_fixed = item.fixed_gallery or (None, None)
        yield {
            **_fields(item, RESULTS),
            "low": low,
            "high": high,
            "low_fixed_gallery": low_fixed,
            "high_fixed_gallery": high_fixed,
            "cells": ", ".join(cell.key for cell in item.cells),
            "shown_in_table": item.is_selected,
        }


def _cell_rows(report: Report) -> Iterator[dict[str, Any]]:
    for cell in published():
        results = [selected for (key, _), selected in report.selected.items() if key == cell.key]
        for selected in sorted(results, key=lambda selected: selected.ours.protocol.order):
            yield _line(cell, selected.ours, SELECTED, selected.why)
            for other in selected.others:
                yield _line(cell, other, OTHER, "")
        if not results:
            yield {**_of_cell(cell), "state": MISSING}


def _fields(source: object, schema: Iterable[str]) -> dict[str, Any]:
    """Return the attributes that have the name of a column."""
    return {name: getattr(source, name) for name in schema if hasattr(source, name)}


def _of_cell(cell: Cell) -> dict[str, Any]:
    return {**_fields(cell, [*CELLS][:8]), "published": cell.value}  # the columns of a cell


def _line(cell: Cell, ours: Measured, state: str, why: str) -> dict[str, Any]:
    low, high = ours.interval or (None, None)
    return {
        **_fields(ours, CELLS),
        **_of_cell(cell),
        "state": state,
        "protocol": ours.protocol.key,
        "low": low,
        "high": high,
        "delta": ours.value - cell.value,
        "weights_sha256": ours.weights,
        "in_the_papers_setting": ours.is_papers,
        "remarks": "; ".join(mark.text for mark in ours.marks),
        "notes": "; ".join(note.text for note in ours.notes),
        "why": why,
        "stores": ", ".join(f"{store.role} {store.fingerprint}" for store in ours.stores),
        "written": ours.written.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _claim_rows(report: Report) -> Iterator[dict[str, Any]]:
    judgements = [j for judged in report.judged for j in (judged.published, *judged.ours)]
    for judgement in judgements:
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


def source_name(protocol: Protocol | None) -> str:
    """Name the numbers that judge: "paper's numbers", "ours, released"."""
    return "paper's numbers" if protocol is None else f"ours, {protocol.title}"
