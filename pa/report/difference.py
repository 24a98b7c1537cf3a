"""The difference of two measured numbers, with an interval."""

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
# Comparisons that would be paired if the tables of queries were intact.
UNPAIRED_MISSING_SCORES = (
    "unpaired: scores of queries damaged",
    "unpaired: scores of queries missing",
)


@dataclass(frozen=True)
class Difference:
    """The difference first − second in points.

    `interval` (95 %) is None if it cannot be computed; `basis` is its method, or the reason.
    """

    value: float
    interval: tuple[float, float] | None
    basis: Basis


def difference(first: Measured, second: Measured) -> Difference:
    """Return the difference of two results of one dataset and protocol.

    Results on other rows are not compared, because a subset may be easier. If both results keep
    the scores of their queries, the difference is paired, with an interval over images as queries
    and gallery. Otherwise the two intervals are joined as if the scores were independent, which
    for the same test rows gives the wider interval.
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
    """Return why two results are not compared query by query."""
    states = {first.queries, second.queries}
    if "damaged" in states:
        return "unpaired: scores of queries damaged"
    if "missing" in states:
        return "unpaired: scores of queries missing"
    return "unpaired: other queries" if states == {"intact"} else "unpaired"


def joined(first: Measured, second: Measured) -> tuple[float, float] | None:
    """Return the interval of first − second, from the half widths of both sides in quadrature.

    Method of variance estimates recovery (Zou and Donner, Statistics in Medicine 2008).
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


@lru_cache(maxsize=512)  # the same pair occurs in several claims
def _paired(first: Path, second: Path) -> tuple[float, float] | None:
    """Return the t interval of the mean difference in points, over images as queries and gallery.

    None if the queries differ, or come from one image.
    """
    queries, others = (read_queries(path) for path in (first, second))
    if not queries.select(KEYS).equals(others.select(KEYS)):
        return None
    scored = ~(queries[SCORE] - others[SCORE]).is_nan().to_numpy()  # (queries,)
    n_images = queries.filter(scored)["image"].n_unique()
    if n_images < 2:  # one image has no spread
        return None
    gap = queries.select("image", gap=queries[INFLUENCE] - others[INFLUENCE])
    half = half_width(gap.group_by("image").sum()["gap"].to_numpy(), n_images)
    value = float((queries[SCORE] - others[SCORE]).to_numpy()[scored].mean())
    return 100 * (value - half), 100 * (value + half)
