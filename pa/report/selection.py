"""Select the result shown in a table cell and list the alternatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pa.report.cells import Cell, Question
from pa.report.measured import Measured
from pa.report.protocol import Protocol


@dataclass(frozen=True)
class SelectedResult:
    """The result shown in a cell under one protocol, the reason, and the alternatives."""

    cell: Cell
    ours: Measured
    why: str
    others: tuple[Measured, ...]

    @property
    def delta(self) -> float:
        """Measured minus published number, in points, before rounding."""
        return self.ours.value - self.cell.value

    def shown(self, places: int = 1) -> str:
        """Return our number with `places` decimals."""
        return f"{self.ours.value:.{places}f}"

    def shown_delta(self, places: int = 1) -> Decimal:
        """Return the difference of the two numbers as they are shown.

        A reader who subtracts 88.5 from 71.2 finds -17.3, whatever the hidden decimals.
        """
        return Decimal(self.shown(places)) - Decimal(self.cell.printed)

    def to_json(self) -> dict[str, Any]:
        ours = self.ours
        return {
            **self.cell.to_json(),
            "protocol": ours.protocol.key,
            "value": ours.value,
            "interval": ours.interval,
            "delta": self.delta,
            "n": ours.n,
            "n_images": ours.n_images,
            "model": ours.model,
            "in_the_papers_setting": ours.is_papers,
            "marks": [mark.text for mark in ours.marks],
            "notes": [note.text for note in ours.notes],
            "why": self.why,
            "others": [other.file for other in self.others],
            "file": ours.file,
            "stores": ours.stores,
            "command": ours.command,
        }


def _criteria(measured: Measured) -> dict[str, bool | float]:
    """Return the reasons to prefer a result, the strongest first; larger values are better."""
    return {
        "the paper's model": not measured.deviates("model"),
        "the paper's splits": not measured.deviates("split"),
        "all of the paper's images": not measured.deviates("data"),
        "more images": measured.n_images,
        "the recipe unchanged": not measured.deviates("recipe"),
        "the better representation": not measured.is_worse_vector,
        "the newest": measured.source.written.timestamp(),
    }


def select(cell: Cell, results: Sequence[Measured]) -> SelectedResult:
    """Select one of at least one result of a cell and protocol."""
    # Sorts are stable: equal results stay in the order of their names.
    by_name = sorted(results, key=lambda measured: measured.file)
    ranked = sorted(by_name, key=lambda measured: [*_criteria(measured).values()], reverse=True)
    if len(ranked) == 1:
        return SelectedResult(cell, ranked[0], "the only result", ())
    # The first criterion that separates the two best is the reason.
    first, second = _criteria(ranked[0]), _criteria(ranked[1])
    why = next((reason for reason in first if first[reason] > second[reason]), "the first by name")
    return SelectedResult(cell, ranked[0], f"{why}, of {len(ranked)} results", tuple(ranked[1:]))


def select_results(
    cells: Iterable[Cell], measured: Iterable[Measured]
) -> Mapping[tuple[str, Protocol], SelectedResult]:
    """Return the selected result of each (cell key, protocol) that has one."""
    by_question: dict[Question, dict[Protocol, list[Measured]]] = {}
    for item in measured:
        by_question.setdefault(item.question, {}).setdefault(item.protocol, []).append(item)
    return {
        (cell.key, protocol): select(cell, results)
        for cell in cells
        for protocol, results in by_question.get(cell.question, {}).items()
    }
