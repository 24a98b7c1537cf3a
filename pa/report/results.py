"""List every result of a workspace, whether or not the paper has a cell for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pa.evaluate.bootstrap import Mean
from pa.evaluate.neighbours import PART, WHOLE
from pa.evaluate.result_parts import Pair
from pa.evaluate.results import Result
from pa.report.cells import Cell
from pa.report.collection import ResultCollection
from pa.report.measured import UNITS, in_percent, percent_interval
from pa.report.protocol import protocol_of_result
from pa.report.selection import SelectedResult
from pa.report.text import one_line

# Scores that are listed, by task; other tasks list all. Scores of single parts, and shares of
# single relations of neighbours, are in the result file.
LISTED = {
    "retrieval": ("ap",),
    "retrieval-difference": ("ap",),
    "neighbours": (PART, WHOLE),
    "neighbours-difference": (PART, WHOLE),
}
METRICS = {"ap": "AP", "accuracy": "top-1"}  # names of scores in the tables of the paper


@dataclass(frozen=True)
class ListedResult:
    """One score of a result, in percent (points for a difference).

    `data` is "dataset, split, view"; `cells` are the cells of the paper that the score answers, and
    `is_selected` is true if they show this number.
    """

    task: str
    score: str
    data: str
    encoder: str
    representation: str
    value: float
    interval: tuple[float, float] | None
    interval_method: str
    fixed_gallery: tuple[float, float] | None
    chance: float | None
    prior: float | None
    n: int
    unit: str
    n_images: int
    protocol: str
    cells: tuple[Cell, ...]
    is_selected: bool
    file: str

    @property
    def in_the_paper(self) -> str:
        """Name the cells that the score answers; empty without any."""
        words = "; ".join(cell.source for cell in self.cells)
        return words if self.is_selected or not words else f"{words} (another result is shown)"

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if name != "cells"}
        fields["is_taken"] = fields.pop("is_selected")
        return {**fields, "cells": [cell.key for cell in self.cells]}


def all_results(
    collection: ResultCollection, selected: Iterable[SelectedResult]
) -> tuple[ListedResult, ...]:
    """Return the scores of every result by task, data, encoder and representation."""
    # A number of Table 4 can be in Tables 5 and 6, too.
    cells: dict[tuple[str, str], dict[Cell, None]] = {}  # by file and metric
    shown = set()
    for item in selected:
        shown.add((item.ours.file, item.ours.question.metric))
        for ours in (item.ours, *item.others):
            cells.setdefault((ours.file, ours.question.metric), {})[item.cell] = None
    listed = []
    for file in collection.results:
        result, name = file.result, collection.relative(file.path)
        compared = [result.tested]
        if isinstance(result.stores, Pair):
            compared = [result.stores.first, result.stores.second]
        for metric, score in result.scores.items():
            if metric not in LISTED.get(result.task, (metric,)):
                continue
            key = (name, METRICS.get(metric, metric))
            mean = score if isinstance(score, Mean) else None
            listed.append(
                ListedResult(
                    task=result.task,
                    score=key[1],
                    data=", ".join(
                        (result.tested.dataset, result.tested.split, result.tested.view)
                    ),
                    encoder=" − ".join(dict.fromkeys(store.encoder for store in compared)),
                    representation=result.representation,
                    **in_percent(score),
                    fixed_gallery=percent_interval(mean.fixed_gallery if mean else None),
                    prior=None if mean is None or math.isnan(mean.prior) else 100 * mean.prior,
                    unit=UNITS.get(result.task.removesuffix("-difference"), "test rows"),
                    protocol=_protocol(result),
                    cells=tuple(cells.get(key, ())),
                    is_selected=key in shown,
                    file=name,
                )
            )
    listed.sort(key=lambda r: (r.task, r.data, r.encoder, r.representation, r.file))
    return tuple(listed)


def _protocol(result: Result) -> str:
    """Describe the protocol with what was changed; without a name, list its parameters."""
    # A result without a named protocol has nothing but its parameters to describe it.
    words, fields = [], result.protocol.parameters
    if result.protocol.name is not None:
        protocol, rules = protocol_of_result(result)
        words, fields = [protocol.title], {**result.protocol.changed, **rules}
    return one_line(", ".join([*words, *(f"{name} {value}" for name, value in fields.items())]))
