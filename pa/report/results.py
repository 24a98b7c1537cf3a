"""List every result of a workspace, whether or not the paper has a cell for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pa.evaluate.bootstrap import Mean
from pa.evaluate.neighbours import PART, WHOLE
from pa.evaluate.results import Pair, Result, Score
from pa.report.cells import Cell
from pa.report.collection import ResultCollection
from pa.report.measured import UNITS, percent, percent_interval
from pa.report.protocol import protocol_of_result
from pa.report.selection import SelectedResult
from pa.report.text import one_line

# Scores that are listed, by task; of other tasks all. Those of single parts, and of neighbours by
# each relation, are in the result file.
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
    `is_selected` says whether it is the number shown there.
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
    n: int | None
    unit: str
    n_images: int | None
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
    cells: dict[tuple[str, str], list[Cell]] = {}
    shown = set()
    for item in selected:
        shown.add((item.ours.file, item.ours.question.metric))
        for ours in (item.ours, *item.others):
            cells.setdefault((ours.file, ours.question.metric), []).append(item.cell)
    listed = []
    for file in collection.results:
        name_of_file = collection.relative(file.path)
        for name, score in file.result.scores.items():
            if name in LISTED.get(file.result.task, (name,)):
                key = (name_of_file, METRICS.get(name, name))
                about = tuple(dict.fromkeys(cells.get(key, ())))
                listed.append(_listed(file.result, name_of_file, name, score, about, key in shown))
    listed.sort(
        key=lambda item: (item.task, item.data, item.encoder, item.representation, item.file)
    )
    return tuple(listed)


def _listed(
    result: Result,
    file: str,
    name: str,
    score: Score,
    cells: tuple[Cell, ...],
    is_selected: bool,
) -> ListedResult:
    store, stores = result.tested, result.stores
    compared = [stores.first, stores.second] if isinstance(stores, Pair) else [store]
    mean = score if isinstance(score, Mean) else None
    return ListedResult(
        task=result.task,
        score=METRICS.get(name, name),
        data=", ".join((store.dataset, store.split, store.view)),
        encoder=" − ".join(dict.fromkeys(item.encoder for item in compared)),
        representation=result.representation,
        value=100 * score.value,
        interval=percent_interval(score.interval),
        interval_method=score.interval_method,
        fixed_gallery=percent_interval(mean.fixed_gallery if mean else None),
        chance=percent(score.chance_level),
        prior=None if mean is None or math.isnan(mean.prior) else 100 * mean.prior,
        n=score.n,
        unit=UNITS.get(result.task.removesuffix("-difference"), "test rows"),
        n_images=score.n_images,
        protocol=_protocol(result),
        cells=cells,
        is_selected=is_selected,
        file=file,
    )


def _protocol(result: Result) -> str:
    """Describe the protocol with what was changed; without a name, list its parameters."""
    if result.protocol.name is None:
        parameters = result.protocol.parameters
        return one_line(", ".join(f"{name} {value}" for name, value in parameters.items()))
    protocol, rules = protocol_of_result(result)
    changed = {**result.protocol.changed, **rules}
    words = [protocol.title, *(f"{name} {value}" for name, value in changed.items())]
    return one_line(", ".join(words))
