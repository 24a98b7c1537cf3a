"""Every result of a workspace, whether a table of the paper has a cell for it or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pa.evaluate.neighbours import PART, WHOLE
from pa.report.cells import Cell
from pa.report.found import Found, Workspace
from pa.report.measured import UNITS, chance_of, percent_interval
from pa.report.protocol import protocol_of_result
from pa.report.taking import Taken
from pa.report.visible import one_line

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
    `is_taken` whether it is the number shown there.
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
    is_taken: bool
    file: str

    @property
    def in_the_paper(self) -> str:
        """The cells that the score answers, in words; empty where the tables have none."""
        words = "; ".join(cell.source for cell in self.cells)
        return words if self.is_taken or not words else f"{words} (another result is shown)"

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if name != "cells"}
        return {**fields, "cells": [cell.key for cell in self.cells]}


def all_results(workspace: Workspace, taken: Iterable[Taken]) -> tuple[ListedResult, ...]:
    """The scores of every result: by task, data, encoder and representation."""
    cells: dict[tuple[str, str], list[Cell]] = {}
    shown = set()
    for one in taken:
        shown.add((one.ours.file, one.ours.question.metric))
        for ours in (one.ours, *one.others):
            cells.setdefault((ours.file, ours.question.metric), []).append(one.cell)
    listed = []
    for found in workspace.results:
        file = workspace.relative(found.path)
        for name, score in _scores(found):
            key = (file, METRICS.get(name, name))
            about = tuple(dict.fromkeys(cells.get(key, ())))
            listed.append(_listed(found, workspace, name, score, about, key in shown))
    listed.sort(key=lambda one: (one.task, one.data, one.encoder, one.representation, one.file))
    return tuple(listed)


def _scores(found: Found) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = LISTED.get(found.task)
    for name, score in found.fields["scores"].items():
        if names is None or name in names:
            yield name, score


def _listed(
    found: Found,
    workspace: Workspace,
    name: str,
    score: Mapping[str, Any],
    cells: tuple[Cell, ...],
    is_taken: bool,
) -> ListedResult:
    stores = list(found.fields["stores"].values())
    tested = found.tested or (stores[0] if stores else {})
    return ListedResult(
        task=found.task,
        score=METRICS.get(name, name),
        data=", ".join(str(tested.get(field)) for field in ("dataset", "split", "view")),
        encoder=" − ".join(dict.fromkeys(str(store.get("encoder")) for store in _compared(found))),
        representation=found.fields["representation"],
        value=100 * score["value"],
        interval=percent_interval(score.get("interval")),
        interval_method=str(score.get("interval_method") or ""),
        fixed_gallery=percent_interval(score.get("interval_fixed_gallery")),
        chance=chance_of(score.get("chance")),
        prior=chance_of(score.get("prior")),
        n=score.get("n"),
        unit=UNITS.get(found.task.removesuffix("-difference"), "test rows"),
        n_images=score.get("n_images", score.get("n_groups")),
        protocol=_protocol(found, workspace),
        cells=cells,
        is_taken=is_taken,
        file=workspace.relative(found.path),
    )


def _compared(found: Found) -> list[dict[str, Any]]:
    """The stores whose encoders name the result: both of a difference, else the tested one."""
    both = [store for role in ("first", "second") if (store := found.store(role))]
    return both or [found.tested]


def _protocol(found: Found, workspace: Workspace) -> str:
    """The protocol in words, with what was changed; without a name, its fields."""
    fields = found.protocol
    if "protocol" not in fields:
        return one_line(", ".join(f"{name} {value}" for name, value in fields.items()))
    protocol, rules = protocol_of_result(found, workspace)
    changed = {**(fields.get("changed") or {}), **rules}
    words = [protocol.title, *(f"{name} {value}" for name, value in changed.items())]
    return one_line(", ".join(words))
