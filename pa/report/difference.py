"""How far two of our numbers are apart, with an interval: paired where both keep their queries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pa.evaluate.intervals import half_width
from pa.report.measured import Measured
from pa.report.queries import INFLUENCE, KEYS, SCORE, read_queries

Basis = Literal[
    "paired",
    "unpaired",
    "unpaired: scores of queries damaged",
    "unpaired: scores of queries missing",
    "unpaired: other queries",
    "no interval",
    "not the same rows",
]
# Comparisons that would be paired if the files were whole.
UNPAIRED_MISSING_SCORES = (
    "unpaired: scores of queries damaged",
    "unpaired: scores of queries missing",
)


@dataclass(frozen=True)
class Difference:
    """first − second in points; `interval` (95 %) is None where nothing can be said, and `basis`
    says how it was found or why not."""

    value: float
    interval: tuple[float, float] | None
    basis: Basis


def difference(first: Measured, second: Measured) -> Difference:
    """The difference of two results of one dataset and protocol.

    Results of other rows are not compared: a subset may be easier. Paired: the queries' scores are
    subtracted, and the interval is over their images as queries and gallery. Unpaired: the two
    intervals are joined as if the scores were independent, which for the same test rows is the
    wider one.
    """
    value = first.value - second.value
    if first.question.dataset == second.question.dataset and not _same_rows(first, second):
        return Difference(value, None, "not the same rows")
    if first.per_query is not None and second.per_query is not None:
        paired = _paired(first.per_query, second.per_query)
        if paired is not None:
            return Difference(value, paired, "paired")
    interval = joined(first, second)
    return Difference(value, interval, _unpaired(first, second) if interval else "no interval")


def _unpaired(first: Measured, second: Measured) -> Basis:
    """Why two results are not compared query by query."""
    states = {first.queries, second.queries}
    if "damaged" in states:
        return "unpaired: scores of queries damaged"
    if "missing" in states:
        return "unpaired: scores of queries missing"
    return "unpaired: other queries" if states == {"intact"} else "unpaired"


def joined(first: Measured, second: Measured) -> tuple[float, float] | None:
    """The interval of first − second from the two intervals, the method of variance estimates
    recovery (Zou and Donner, Statistics in Medicine 2008): each side's half widths in quadrature.
    """
    if first.interval is None or second.interval is None:
        return None
    low = math.hypot(first.value - first.interval[0], second.interval[1] - second.value)
    high = math.hypot(first.interval[1] - first.value, second.value - second.interval[0])
    value = first.value - second.value
    return value - low, value + high


def _same_rows(first: Measured, second: Measured) -> bool:
    if first.rows is not None and second.rows is not None and first.unit == second.unit:
        return (first.rows, first.n) == (second.rows, second.n)
    return (first.split, first.n, first.n_images) == (second.split, second.n, second.n_images)


@lru_cache(maxsize=512)
def _paired(first: Path, second: Path) -> tuple[float, float] | None:
    """t interval of the mean difference in points, over images as queries and gallery; None where
    the queries differ or are of one image."""
    one, two = (read_queries(path) for path in (first, second))
    if not one.select(KEYS).equals(two.select(KEYS)):
        return None
    scored = ~(one[SCORE] - two[SCORE]).is_nan().to_numpy()
    n_images = one.filter(scored)["image"].n_unique()
    if n_images < 2:
        return None
    gap = one.select("image", gap=one[INFLUENCE] - two[INFLUENCE])
    half = half_width(gap.group_by("image").sum()["gap"].to_numpy(), n_images)
    value = float((one[SCORE] - two[SCORE]).to_numpy()[scored].mean())
    return 100 * (value - half), 100 * (value + half)
