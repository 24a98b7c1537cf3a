"""Judge whether a claim holds, from the printed numbers and from ours with intervals."""

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
    """The verdict of one comparison, and the difference (points) with interval and basis."""

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
    """The verdict on a claim from one set of numbers, with every comparison.

    `protocol` is None for the paper's own numbers. `marks` are the deviations of our numbers from
    the paper's setting.
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
        """Number of comparisons of which both numbers are known."""
        return sum(outcome.is_measured for outcome in self.outcomes)

    @property
    def summary(self) -> str:
        """Count the comparisons by outcome: "3 of 5 measured: 2 hold, 1 undecided".

        States how many must hold unless all must. By the paper's own numbers: "5 of 5 hold".
        """
        total, counted = len(self.outcomes), []
        must = "" if self.claim.need == "all" else f"; {self.claim.needed} must hold"
        if self.protocol is None:
            return f"{self.count('holds')} of {total} hold{must}"
        if not self.measured:
            return f"none of {total} measured"
        for verdict, item, many in _COUNTED:
            if n := self.count(verdict):
                counted.append(f"{n} {item if n == 1 else many}")
        return f"{self.measured} of {total} measured: {', '.join(counted)}{must}"

    @property
    def without_pairs(self) -> int:
        """Number of comparisons that are unpaired because scores of queries are unavailable."""
        return sum(outcome.basis in UNPAIRED_MISSING_SCORES for outcome in self.outcomes)

    @property
    def bases(self) -> tuple[str, ...]:
        """Methods of the intervals of the measured comparisons."""
        methods = (o.basis for o in self.outcomes if o.is_measured and o.basis)
        return tuple(dict.fromkeys(methods))


def judge_published(claim: Claim) -> Judgement:
    """Judge by the printed numbers, which have no intervals, in exact decimal arithmetic."""

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
    """Judge by our numbers of one protocol.

    A comparison holds, or does not, if the whole interval of the difference agrees; otherwise it is
    undecided.
    """
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

    judgement = _judgement(claim, protocol, outcome)
    marks = tuple(dict.fromkeys(_short(mark.text) for item in used for mark in item.marks))
    return Judgement(claim, protocol, judgement.verdict, judgement.outcomes, marks)


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
    return Judgement(claim, protocol, combine(claim, [item.verdict for item in outcomes]), outcomes)


def combine(claim: Claim, verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a claim from those on its comparisons.

    A claim is decided if no open comparison could change its verdict: "all" fails with the first
    comparison that does not hold, and "most" is decided by a majority.
    """
    held = verdicts.count("holds")
    possible = len(verdicts) - verdicts.count("does not hold")
    if held >= claim.needed:
        return "holds"
    if possible < claim.needed:
        return "does not hold"
    return "not measured" if set(verdicts) == {"not measured"} else "undecided"


def _short(text: str) -> str:
    """Shorten a deviation so that it is equal for results with different weights."""
    return text.split("…")[0] + "…" if text.startswith("other weights") else text


def unpaired_note(n: int) -> str:
    """State that n comparisons lack the scores of queries; empty for 0."""
    noun = "comparison uses" if n == 1 else "comparisons use"
    reason = "scores of queries are damaged or missing"
    return f"{n} {noun} an unpaired interval: {reason}" if n else ""
