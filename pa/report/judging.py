"""Judge whether a claim holds, from the printed numbers and from ours with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from pa.evaluate.intervals import half_width
from pa.report.claims import CellComparison, Claim, KnownIssue
from pa.report.collection import query_table
from pa.report.measured import Measured
from pa.report.protocol import Protocol
from pa.report.selection import SelectedResult

Interval = tuple[float, float]
Verdict = Literal["holds", "does not hold", "undecided", "not measured"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "undecided", "not measured")
# Verdicts in a count: of one comparison, and of several.
_COUNTED: dict[Verdict, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "does not hold": ("does not", "do not"),
    "undecided": ("undecided", "undecided"),
}
# Comparisons that would be paired if the tables of queries were intact.
UNPAIRED_MISSING_SCORES = (
    "unpaired: scores of queries damaged",
    "unpaired: scores of queries missing",
)
KEYS = ["row", "image", "label"]  # equal keys: the same queries, which can be paired


# -- differences ----------------------------------------------------------------------------------


class Difference(NamedTuple):
    """The difference first − second in points.

    `interval` (95 %) is None if it cannot be computed; `basis` is its method, or the reason.
    """

    value: float
    interval: Interval | None
    basis: str


def difference(first: Measured, second: Measured) -> Difference:
    """Return the difference of two results of one dataset and protocol.

    Results on other rows are not compared, because a subset may be easier. If both results keep
    the scores of their queries, the difference is paired, with an interval over images as queries
    and gallery. Otherwise the two intervals are joined as if the scores were independent, which
    for the same test rows gives the wider interval.
    """
    # Before rounding: the printed difference of two rounded numbers can be 0.1 off.
    value = first.value - second.value
    if first.question.dataset == second.question.dataset and not _same_rows(first, second):
        return Difference(value, None, "not the same rows")
    states = {first.queries, second.queries}
    if states == {"intact"}:
        paired = _paired(*(query_table(item.source.path) for item in (first, second)))
        if paired is not None:
            return Difference(value, paired, "paired")
    interval, basis = joined(first, second), "unpaired"
    if interval is None:
        basis = "no interval"
    elif "damaged" in states:
        basis = "unpaired: scores of queries damaged"
    elif "missing" in states:
        basis = "unpaired: scores of queries missing"
    elif states == {"intact"}:
        basis = "unpaired: other queries"
    return Difference(value, interval, basis)


def joined(first: Measured, second: Measured) -> Interval | None:
    """Return the interval of first − second, from the half widths of both sides in quadrature.

    Method of variance estimates recovery (Zou and Donner, Statistics in Medicine 2008).
    """
    if first.interval is None or second.interval is None:
        return None
    # The difference is lowest where the first number falls and the second rises.
    low = math.hypot(first.value - first.interval[0], second.interval[1] - second.value)
    high = math.hypot(first.interval[1] - first.value, second.value - second.interval[0])
    value = first.value - second.value
    return value - low, value + high


def _same_rows(first: Measured, second: Measured) -> bool:
    tested, other = first.source.result.tested, second.source.result.tested
    digests = (tested.rows_sha256, other.rows_sha256)
    if None not in digests and first.unit == second.unit:
        return digests[0] == digests[1] and first.n == second.n
    # Stores without a digest of their rows are compared by what else was recorded.
    return (tested.split, first.n, first.n_images) == (other.split, second.n, second.n_images)


@lru_cache(maxsize=512)  # the same pair occurs in several claims
def _paired(*tables: Path) -> Interval | None:
    """Return the t interval of the mean difference in points, over images as queries and gallery.

    None if the queries differ, or come from one image.
    """
    first, second = (
        pl.read_parquet(table, columns=[*KEYS, "ap", "influence"], glob=False) for table in tables
    )
    if not first.select(KEYS).equals(second.select(KEYS)):
        return None
    # (queries,), null or NaN for a query without a score
    gaps = (first["ap"] - second["ap"]).fill_null(math.nan).to_numpy()
    scored = ~np.isnan(gaps)
    n_images = first.filter(scored)["image"].n_unique()
    if n_images < 2:  # one image has no spread
        return None
    # An image moves the mean as query and as gallery; its influences are the sum of both.
    moved = first.select("image", gap=first["influence"] - second["influence"])
    by_image = moved.group_by("image", maintain_order=True).sum()  # equal files, equal digits
    half = half_width(by_image["gap"].to_numpy(), n_images)
    value = float(gaps[scored].mean())
    return 100 * (value - half), 100 * (value + half)


# -- comparisons ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The verdict of one comparison, and the difference (points) with interval and basis."""

    comparison: CellComparison
    verdict: Verdict
    value: float | None = None
    interval: Interval | None = None
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


def _decide(comparison: CellComparison, low: float | Decimal, high: float | Decimal) -> Verdict:
    """Return the verdict on a difference between `low` and `high`."""
    # Limits are decimals: 0.3 in binary is below the printed 0.3.
    if comparison.within is not None:
        limit = Decimal(str(comparison.within))
        if -limit <= low and limit >= high:
            return "holds"
        return "does not hold" if limit < low or -limit > high else "undecided"
    limit = Decimal(str(comparison.above))
    if limit < low:
        return "holds"
    return "does not hold" if limit >= high else "undecided"


# -- claims ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim from one set of numbers, with every comparison.

    `protocol` is None for the paper's own numbers. `marks` are the deviations of our numbers from
    the paper's setting.
    """

    claim: Claim
    protocol: Protocol | None
    outcomes: tuple[Outcome, ...]
    marks: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return combine(self.claim, [outcome.verdict for outcome in self.outcomes])

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
        total, must = len(self.outcomes), ""
        if self.claim.need != "all":
            must = f"; {self.claim.needed} must hold"
        if self.protocol is None:
            return f"{self.count('holds')} of {total} hold{must}"
        if not self.measured:
            return f"none of {total} measured"
        counts = {verdict: self.count(verdict) for verdict in _COUNTED}
        words = [f"{n} {_COUNTED[verdict][n > 1]}" for verdict, n in counts.items() if n]
        return f"{self.measured} of {total} measured: {', '.join(words)}{must}"

    def to_json(self) -> dict[str, Any]:
        bases = (o.basis for o in self.outcomes if o.is_measured and o.basis)
        return {
            "verdict": self.verdict,
            "comparisons": len(self.outcomes),
            "measured": self.measured,
            "hold": self.count("holds"),
            "do_not_hold": self.count("does not hold"),
            "undecided": self.count("undecided"),
            "not_measured": self.count("not measured"),
            "intervals": list(dict.fromkeys(bases)),
            "without_pairs": sum(o.basis in UNPAIRED_MISSING_SCORES for o in self.outcomes),
            "not_the_papers_setting": list(self.marks),
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }


def judge_published(claim: Claim) -> Judgement:
    """Judge by the printed numbers, which have no intervals, in exact decimal arithmetic."""
    outcomes = []
    for comparison in claim.comparisons:
        # Exact: in binary 92.8 − 92.9 is not −0.1.
        gap = Decimal(comparison.first.printed) - Decimal(comparison.second.printed)
        verdict = _decide(comparison, gap, gap)
        outcomes.append(Outcome(comparison, verdict, float(gap), None, "as printed"))
    return Judgement(claim, None, tuple(outcomes))


def judge_ours(
    claim: Claim, selected: Mapping[tuple[str, Protocol], SelectedResult], protocol: Protocol
) -> Judgement:
    """Judge by our numbers of one protocol.

    A comparison holds, or does not, if the whole interval of the difference agrees; otherwise it is
    undecided.
    """
    outcomes: list[Outcome] = []
    marks: dict[str, None] = {}  # in order of appearance
    for comparison in claim.comparisons:
        pair = [selected.get((c.key, protocol)) for c in (comparison.first, comparison.second)]
        # Both numbers are of one protocol: others were cut, trained or scored by other rules.
        first, second = (side.ours if side else None for side in pair)
        if first is None or second is None:
            outcomes.append(Outcome(comparison, "not measured"))
            continue
        gap = difference(first, second)
        verdict = _decide(comparison, *gap.interval) if gap.interval else "undecided"
        outcomes.append(Outcome(comparison, verdict, *gap))
        for mark in (*first.marks, *second.marks):
            # One mark for all results with other weights, whatever these are.
            is_weights = mark.text.startswith("other weights")
            marks[mark.text.partition("…")[0] + "…" if is_weights else mark.text] = None
    return Judgement(claim, protocol, tuple(outcomes), tuple(marks))


def combine(claim: Claim, verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a claim from those on its comparisons.

    A claim is decided if no open comparison could change its verdict: "all" fails with the first
    comparison that does not hold, and "most" is decided by a majority.
    """
    held = verdicts.count("holds")
    # Open comparisons can still turn out either way.
    possible = len(verdicts) - verdicts.count("does not hold")
    if held >= claim.needed:
        return "holds"
    if possible < claim.needed:
        return "does not hold"
    return "not measured" if set(verdicts) == {"not measured"} else "undecided"


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, judged by the numbers of the paper and by ours of each protocol."""

    claim: Claim
    published: Judgement
    ours: tuple[Judgement, ...]
    known_issues: tuple[KnownIssue, ...]

    def by(self, protocol: Protocol | None) -> Judgement:
        """Return the judgement by our numbers of a protocol, or by those of the paper (None)."""
        if protocol is None:
            return self.published
        for item in self.ours:
            if item.protocol == protocol:
                return item
        return judge_ours(self.claim, {}, protocol)  # none of its cells has a number

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.claim.id,
            "says": self.claim.says,
            "where": self.claim.where,
            "reading": self.claim.reading,
            "needed": self.claim.needed,
            "by_the_papers_numbers": self.published.verdict,
            "by_ours": {
                item.protocol.key: item.to_json() for item in self.ours if item.protocol is not None
            },
        }


def unpaired_note(judgements: Iterable[Judgement]) -> str:
    """State how many comparisons lack the scores of queries; empty without any."""
    n = sum(o.basis in UNPAIRED_MISSING_SCORES for judged in judgements for o in judged.outcomes)
    noun = "comparison uses" if n == 1 else "comparisons use"
    reason = "scores of queries are damaged or missing"
    return f"{n} {noun} an unpaired interval: {reason}" if n else ""
