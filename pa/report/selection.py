"""Which of several results stands in a cell: always one, for a stated reason, the others named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pa.report.cells import Cell, Question
from pa.report.measured import Measured
from pa.report.protocol import Protocol


@dataclass(frozen=True)
class SelectedResult:
    """Our number for a cell under one protocol, why it, and the results that were left."""

    cell: Cell
    ours: Measured
    why: str
    others: tuple[Measured, ...]

    @property
    def delta(self) -> float:
        """Ours minus the paper's, in points, of the number as it was measured."""
        return self.ours.value - self.cell.value

    def shown(self, places: int = 1) -> str:
        """Our number with so many decimals, as a page writes it."""
        return f"{self.ours.value:.{places}f}"

    def shown_delta(self, places: int = 1) -> Decimal:
        """The difference of the two numbers that a page shows, so that a reader who subtracts
        them finds it: 71.2 beside 88.5 gives -17.3, whatever follows the 71.2."""
        return Decimal(self.shown(places)) - Decimal(self.cell.printed)


@dataclass(frozen=True)
class _Criterion:
    """A reason to prefer one result to another: a larger `value` is better."""

    said: str
    value: bool | float


def _criteria(one: Measured) -> tuple[_Criterion, ...]:
    return (
        _Criterion("the paper's model", not one.deviates("model")),
        _Criterion("the paper's splits", not one.deviates("split")),
        _Criterion("all of the paper's images", not one.deviates("data")),
        _Criterion("more images", one.n_images or 0),
        _Criterion("the recipe unchanged", not one.deviates("recipe")),
        _Criterion("the better representation", not one.is_worse_vector),
        _Criterion("the newest", one.written.timestamp()),
    )


def take(cell: Cell, found: Sequence[Measured]) -> SelectedResult:
    """Choose among results of one cell and one protocol; there must be at least one."""
    by_name = sorted(found, key=lambda one: one.file)
    ranked = sorted(by_name, key=lambda one: [c.value for c in _criteria(one)], reverse=True)
    first = ranked[0]
    if len(ranked) == 1:
        return SelectedResult(cell, first, "the only result", ())
    pairs = zip(_criteria(first), _criteria(ranked[1]), strict=True)
    why = next(
        (mine.said for mine, theirs in pairs if mine.value > theirs.value), "the first by name"
    )
    return SelectedResult(cell, first, f"{why}, of {len(ranked)} results", tuple(ranked[1:]))


def select_results(
    cells: Iterable[Cell], found: Iterable[Measured]
) -> Mapping[tuple[str, Protocol], SelectedResult]:
    """(key of the cell, protocol) → what stands there; cells without a result are left out."""
    by_question: dict[Question, dict[Protocol, list[Measured]]] = {}
    for one in found:
        by_question.setdefault(one.question, {}).setdefault(one.protocol, []).append(one)
    return {
        (cell.key, protocol): take(cell, results)
        for cell in cells
        for protocol, results in by_question.get(cell.question, {}).items()
    }
