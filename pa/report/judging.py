"""Does a claim hold? Judged from the printed numbers, and from ours with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pa.report.claims import Claim, Comparison
from pa.report.difference import UNPAIRED_MISSING_SCORES, difference
from pa.report.measured import Measured
from pa.report.protocol import Protocol
from pa.report.selection import SelectedResult

Verdict = Literal["holds", "does not hold", "undecided", "not measured"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "undecided", "not measured")
_COUNTED: tuple[tuple[Verdict, str, str], ...] = (
    ("holds", "holds", "hold"),
    ("does not hold", "does not", "do not"),
    ("undecided", "undecided", "undecided"),
)


@dataclass(frozen=True)
class Outcome:
    """One comparison: its verdict, and the difference (points) with interval and basis."""

    comparison: Comparison
    verdict: Verdict
    value: float | None = None
    interval: tuple[float, float] | None = None
    basis: str = ""

    @property
    def is_measured(self) -> bool:
        return self.verdict != "not measured"

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.comparison.first.key,
            "second": self.comparison.second.key,
            "claimed": self.comparison.text,
            "verdict": self.verdict,
            "difference": self.value,
            "interval": self.interval,
            "basis": self.basis,
        }


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict from one set of numbers, with every comparison behind it.

    `protocol` is None for the paper's own numbers. `marks` says why our numbers are not of the
    paper's setting, if they are not.
    """

    claim: Claim
    protocol: Protocol | None
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    marks: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(outcome.verdict == verdict for outcome in self.outcomes)

    @property
    def measured(self) -> int:
        """How many of the comparisons have both of their numbers."""
        return sum(outcome.is_measured for outcome in self.outcomes)

    @property
    def said(self) -> str:
        """How many comparisons are measured and how they came out, and how many must hold where
        that is not all: "3 of 5 measured: 2 hold, 1 undecided". By the paper's own numbers, which
        are all there: "5 of 5 hold"."""
        total, counted = len(self.outcomes), []
        must = "" if self.claim.need == "all" else f"; {self.claim.needed} must hold"
        if self.protocol is None:
            return f"{self.count('holds')} of {total} hold{must}"
        if not self.measured:
            return f"none of {total} measured"
        for verdict, one, many in _COUNTED:
            if n := self.count(verdict):
                counted.append(f"{n} {one if n == 1 else many}")
        return f"{self.measured} of {total} measured: {', '.join(counted)}{must}"

    @property
    def without_pairs(self) -> int:
        """How many comparisons took an interval without pairs since scores of queries are damaged
        or gone."""
        return sum(outcome.basis in UNPAIRED_MISSING_SCORES for outcome in self.outcomes)

    @property
    def bases(self) -> tuple[str, ...]:
        """How the intervals of the measured comparisons were found."""
        found = (o.basis for o in self.outcomes if o.is_measured and o.basis)
        return tuple(dict.fromkeys(found))


def judge_published(claim: Claim) -> Judgement:
    """By the numbers as printed, which have no intervals. Exact: 0.1 is a tenth."""

    def outcome(comparison: Comparison) -> Outcome:
        gap = Decimal(comparison.first.printed) - Decimal(comparison.second.printed)
        if comparison.within is not None:
            holds = abs(gap) <= Decimal(str(comparison.within))
        else:
            holds = gap > Decimal(str(comparison.above))
        return Outcome(
            comparison, "holds" if holds else "does not hold", float(gap), None, "as printed"
        )

    return _judgement(claim, None, outcome)


def judge_ours(
    claim: Claim, selected: Mapping[tuple[str, Protocol], SelectedResult], protocol: Protocol
) -> Judgement:
    """By our numbers of one protocol. A comparison holds, or does not, where the whole interval of
    the difference says so, and is undecided otherwise."""
    used: list[Measured] = []

    def outcome(comparison: Comparison) -> Outcome:
        sides = [selected.get((c.key, protocol)) for c in (comparison.first, comparison.second)]
        first, second = (side.ours if side else None for side in sides)
        if first is None or second is None:
            return Outcome(comparison, "not measured")
        used.extend((first, second))
        gap = difference(first, second)
        return Outcome(
            comparison, _decide(comparison, gap.interval), gap.value, gap.interval, gap.basis
        )

    made = _judgement(claim, protocol, outcome)
    marks = tuple(dict.fromkeys(_short(mark.text) for one in used for mark in one.marks))
    return Judgement(claim, protocol, made.verdict, made.outcomes, marks)


def _decide(comparison: Comparison, interval: tuple[float, float] | None) -> Verdict:
    if interval is None:
        return "undecided"
    low, high = interval
    if comparison.within is not None:
        if -comparison.within <= low and high <= comparison.within:
            return "holds"
        apart = low > comparison.within or high < -comparison.within
        return "does not hold" if apart else "undecided"
    if low > comparison.above:
        return "holds"
    return "does not hold" if high <= comparison.above else "undecided"


def _judgement(
    claim: Claim, protocol: Protocol | None, outcome: Callable[[Comparison], Outcome]
) -> Judgement:
    outcomes = tuple(outcome(comparison) for comparison in claim.comparisons)
    return Judgement(claim, protocol, combine(claim, [one.verdict for one in outcomes]), outcomes)


def combine(claim: Claim, verdicts: Sequence[Verdict]) -> Verdict:
    """The claim's verdict: it holds, or does not, where no comparison that is undecided or not
    measured could change that. So "all" holds when every comparison is measured and holds, and
    falls with the first that does not; "most" is decided by a majority either way."""
    held = verdicts.count("holds")
    possible = len(verdicts) - verdicts.count("does not hold")
    if held >= claim.needed:
        return "holds"
    if possible < claim.needed:
        return "does not hold"
    return "not measured" if set(verdicts) == {"not measured"} else "undecided"


def _short(text: str) -> str:
    """A mark without what differs from result to result: "subset: 470 images of 11,788" stays."""
    return text.split("…")[0] + "…" if text.startswith("other weights") else text


def unpaired_note(n: int) -> str:
    """State that n comparisons lack the scores of queries; empty for 0."""
    noun = "comparison uses" if n == 1 else "comparisons use"
    reason = "scores of queries are damaged or missing"
    return f"{n} {noun} an unpaired interval: {reason}" if n else ""
