"""Accuracy with what it takes to read it: chance, the number of images, an interval.

Shapes: n rows scored, C classes, G groups (images), R resamples. Accuracies are fractions here;
`str(score)` prints percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError
from pa.evaluate.intervals import (
    BOOTSTRAP,
    CONFIDENCE,
    SMALL_SAMPLE,
    T_IMAGES,
    half_width,
    t_quantile,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RESAMPLES = 2000

WILSON_ROWS = "wilson over rows"
WILSON_IMAGES = "wilson over images"
ONE_DRAW = "one draw: without the spread of draws"


@dataclass(frozen=True)
class Interval:
    """A confidence interval (fractions) and how it was made."""

    low: float
    high: float
    method: str
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Chance:
    """What knowing nothing gives: the commonest training class always, or any class at random."""

    majority: float
    uniform: float


@dataclass(frozen=True)
class Score:
    """Accuracy of n rows in `n_groups` images; all values are fractions of 1."""

    value: float
    n: int
    n_groups: int
    interval: Interval
    chance: Chance

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "n": self.n,
            "n_groups": self.n_groups,
            "interval": [self.interval.low, self.interval.high],
            "interval_method": self.interval.method,
            "confidence": self.interval.confidence,
            "chance": {"majority": self.chance.majority, "uniform": self.chance.uniform},
        }

    def __str__(self) -> str:
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return (
            f"{100 * self.value:.2f} % ({100 * self.interval.confidence:.0f} % interval "
            f"{low:.2f} to {high:.2f}, {self.interval.method}; n = {self.n} rows of "
            f"{self.n_groups} images; chance {100 * self.chance.majority:.2f} %)"
        )


@dataclass(frozen=True)
class Scores:
    """Accuracy of several heads (seeds, draws of shots) on the same rows.

    `mean` is the mean of `each`; its interval resamples the images with all heads' answers on
    them, so it says how the mean would move with other images. Where the heads are of random draws
    of training rows it includes their spread too, so it says how the mean would move with other
    images and other draws. `std` is the sample standard
    deviation over the heads, None for one.
    """

    each: tuple[Score, ...]
    mean: Score
    std: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            **self.mean.to_json(),
            "std": self.std,
            "each": [
                {"value": one.value, "interval": [one.interval.low, one.interval.high]}
                for one in self.each
            ],
        }

    def __str__(self) -> str:
        if self.std is None:
            return str(self.mean)
        return (
            f"{100 * self.mean.value:.2f} ± {100 * self.std:.2f} % "
            + str(self.mean).partition(" % ")[2]
        )


def accuracies(
    predicted: Ints,
    target: Ints,
    groups: Ints,
    chance: Chance,
    *,
    of_draws: bool = False,
    seed: int = 0,
) -> Scores:
    """Score the predictions (S, n) of S heads; the rest as for `accuracy`.

    `of_draws`: the heads differ by a random draw of training rows, whose variance belongs into the
    interval of the mean. One draw does not show it; the method of the interval says so.
    """
    each = tuple(accuracy(one, target, groups, chance, seed=seed) for one in predicted)
    if len(each) == 1:
        interval = each[0].interval
        if of_draws:
            interval = replace(interval, method=f"{interval.method}, {ONE_DRAW}")
        return Scores(each, replace(each[0], interval=interval), None)
    values = np.array([one.value for one in each])
    correct, sizes = _per_group((predicted == target).sum(axis=0), groups)
    interval = _interval(correct, len(each) * sizes, seed)
    if of_draws:
        interval = _with_draws(interval, values)
    mean = Score(
        value=float(values.mean()),
        n=len(target),
        n_groups=len(sizes),
        interval=interval,
        chance=chance,
    )
    return Scores(each, mean, float(values.std(ddof=1)))


def accuracy(
    predicted: Ints, target: Ints, groups: Ints, chance: Chance, *, seed: int = 0
) -> Score:
    """Score predictions.

    `predicted` and `target` are class indices (n,), int64; `groups` (n,) numbers the image each
    row comes from: rows of one image succeed and fail together, so the interval resamples images.
    Raises `UsageError` for no rows or unequal lengths.
    """
    if not len(predicted) == len(target) == len(groups):
        raise UsageError(
            f"predictions, targets and groups must be equally long, not {len(predicted)}, "
            f"{len(target)} and {len(groups)}."
        )
    if len(target) == 0:
        raise UsageError("accuracy of no rows is not defined.")
    correct, sizes = _per_group(predicted == target, groups)
    return Score(
        value=float(correct.sum() / sizes.sum()),
        n=len(target),
        n_groups=len(sizes),
        interval=_interval(correct, sizes, seed),
        chance=chance,
    )


def chance_level(train_target: Ints, test_target: Ints, n_classes: int) -> Chance:
    """Accuracy on the test rows of the two rules that look at no feature."""
    majority = int(np.bincount(train_target, minlength=n_classes).argmax())
    return Chance(float((test_target == majority).mean()), 1 / n_classes)


def wilson(value: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion `value` seen in n independent trials (1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = value + z * z / (2 * n)
    half = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def confusion_matrix(predicted: Ints, target: Ints, n_classes: int) -> Ints:
    """Counts (C, C), int64: rows are true classes, columns predicted ones."""
    cells = np.bincount(target * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def per_class_accuracy(confusion: Ints) -> Floats:
    """Share of each class's rows that were recognised, (C,); NaN for a class without rows."""
    sizes = confusion.sum(axis=1)
    shares: Floats = np.full(len(sizes), np.nan)
    np.divide(confusion.diagonal(), sizes, out=shares, where=sizes > 0)
    return shares


def _per_group(correct: npt.NDArray[Any], groups: Ints) -> tuple[Ints, Ints]:
    """Correct answers and rows of each group, (G,) each."""
    _, number = np.unique(groups, return_inverse=True)
    sizes = np.bincount(number)
    return np.bincount(number, weights=correct).astype(np.int64), sizes.astype(np.int64)


def _interval(correct: Ints, sizes: Ints, seed: int) -> Interval:
    value, n_groups = float(correct.sum() / sizes.sum()), len(sizes)
    if sizes.max() == 1:
        return Interval(*wilson(value, n_groups), method=WILSON_ROWS)
    # Resampling sees no spread where every image is all right, or all wrong, or alone; an
    # interval of width zero would claim certainty. Counting images as trials does not.
    if n_groups == 1 or value in (0.0, 1.0):
        return Interval(*wilson(value, n_groups), method=WILSON_IMAGES)
    if n_groups < SMALL_SAMPLE:
        half = half_width((correct - value * sizes) / sizes.sum())
        return Interval(max(0.0, value - half), min(1.0, value + half), method=T_IMAGES)
    return Interval(*_bootstrap(correct, sizes, seed), method=BOOTSTRAP)


def _with_draws(interval: Interval, values: Floats) -> Interval:
    """Widen the interval of the mean of S accuracies (S,) by what the draws add.

    Half widths of independent sources add in quadrature (Zou and Donner, Statistics in Medicine
    2008); that of the draws is Student's t with S - 1 degrees of freedom.
    """
    value = float(values.mean())
    half = t_quantile(len(values)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    low = value - math.hypot(value - interval.low, half)
    high = value + math.hypot(interval.high - value, half)
    method = f"{interval.method}, t over {len(values)} draws"
    return Interval(max(0.0, low), min(1.0, high), method)


def _bootstrap(correct: Ints, sizes: Ints, seed: int) -> tuple[float, float]:
    """Percentile interval of the ratio (correct rows) / (rows) over resampled groups."""
    # Groups with equal counts are interchangeable: drawing G groups is one multinomial draw over
    # the K distinct pairs, which stays small (50 at most for 49 windows) however many images.
    pairs, multiplicity = np.unique(np.stack([correct, sizes], axis=1), axis=0, return_counts=True)
    n_groups = len(sizes)
    draws = np.random.default_rng(seed).multinomial(
        n_groups, multiplicity / n_groups, size=RESAMPLES
    )  # (R, K)
    resampled = draws @ pairs  # (R, 2): correct rows, rows
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], [tail, 1 - tail])
    return float(low), float(high)
