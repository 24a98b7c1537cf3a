"""Accuracy with an interval over images and the level of chance.

Shapes: n rows scored, C classes, G groups (images), R resamples, S heads. Accuracies are fractions
of 1; `str(score)` prints percent.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError
from pa.evaluate.intervals import (
    BOOTSTRAP,
    CONFIDENCE,
    RESAMPLES,
    SMALL_SAMPLE,
    T_IMAGES,
    Floats,
    Interval,
    Ints,
    Score,
    percentile_interval,
    t_interval,
    t_quantile,
)

WILSON_ROWS = "wilson over rows"  # one row per image: rows are independent trials
WILSON_IMAGES = "wilson over images"  # no spread between images: they are the trials
ONE_DRAW = "one draw: without the spread of draws"


@dataclass(frozen=True)
class Chance:
    """Accuracy of always predicting the commonest training class, and of a random class."""

    majority: float
    uniform: float


@dataclass(frozen=True)
class Accuracy(Score):
    """Accuracy of one head on n rows."""

    IMAGES = "n_groups"

    interval: Interval
    chance: Chance

    @property
    def chance_level(self) -> float:
        """Share of the commonest training class."""
        return self.chance.majority

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "chance": asdict(self.chance)}

    @classmethod
    def _read_more(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {"chance": Chance(**fields["chance"])}

    def __str__(self) -> str:
        return (
            f"{100 * self.value:.2f} % ({100 * CONFIDENCE:.0f} % interval {self.interval.text()}, "
            f"{self.interval.method}; n = {self.n} rows of {self.n_images} images; chance "
            f"{100 * self.chance.majority:.2f} %)"
        )


@dataclass(frozen=True)
class Scores(Accuracy):
    """Mean accuracy of several heads (seeds, draws of shots) on the same rows, and that of `each`.

    The interval resamples the images with all heads' answers; if the heads were trained on random
    draws of rows, it includes their spread too. `std` is the sample standard deviation over the
    heads, None for one head.
    """

    std: float | None
    each: tuple[Accuracy, ...]

    def to_json(self) -> dict[str, Any]:
        each = [{"value": head.value, "interval": head.interval.ends} for head in self.each]
        return {**super().to_json(), "std": self.std, "each": each}

    @classmethod
    def _read_more(cls, fields: dict[str, Any]) -> dict[str, Any]:
        # What the heads share is recorded once; the method of each head's interval is not.
        heads = (Accuracy.read({**fields, **head}) for head in fields["each"])
        return {**super()._read_more(fields), "std": fields["std"], "each": tuple(heads)}

    def __str__(self) -> str:
        text = super().__str__()
        if self.std is None:
            return text
        return f"{100 * self.value:.2f} ± {100 * self.std:.2f} % " + text.partition(" % ")[2]


def accuracies(
    predicted: Ints,
    target: Ints,
    groups: Ints,
    chance: Chance,
    *,
    of_draws: bool = False,
    seed: int = 0,
) -> Scores:
    """Score the predictions of several heads.

    Parameters
    ----------
    predicted : integer array of shape (S, n)
        Class indices predicted by each head; for the others see `accuracy`.
    of_draws : bool
        Whether the heads differ by a random draw of training rows, whose variance belongs to the
        interval of the mean. One draw does not show it; the interval's method states so.
    """
    each = tuple(accuracy(row, target, groups, chance, seed=seed) for row in predicted)
    if len(each) == 1:
        interval = each[0].interval
        if of_draws:
            interval = replace(interval, method=f"{interval.method}, {ONE_DRAW}")
        return Scores(**{**vars(each[0]), "interval": interval}, std=None, each=each)
    values = np.array([score.value for score in each])  # (S,)
    # An image is drawn with the answers of all heads: they are right and wrong together.
    correct, sizes = _per_group((predicted == target).sum(axis=0), groups)  # (G,)
    interval = _interval(correct, len(each) * sizes, seed)
    mean, std = float(values.mean()), float(values.std(ddof=1))
    if of_draws:
        # Half widths of independent sources add in quadrature (Zou and Donner, Statistics in
        # Medicine 2008); that of the draws is Student's t with S - 1 degrees of freedom.
        half = t_quantile(len(values)) * std / math.sqrt(len(values))
        low = mean - math.hypot(mean - interval.low, half)
        high = mean + math.hypot(interval.high - mean, half)
        method = f"{interval.method}, t over {len(values)} draws"
        interval = Interval(max(0.0, low), min(1.0, high), method)
    return Scores(mean, len(target), len(sizes), interval, chance, std, each)


def accuracy(
    predicted: Ints, target: Ints, groups: Ints, chance: Chance, *, seed: int = 0
) -> Accuracy:
    """Score the predictions of one head.

    Parameters
    ----------
    predicted, target : integer arrays of shape (n,)
        Class indices.
    groups : integer array of shape (n,)
        Image of each row. Rows of one image succeed and fail together, so that the interval
        resamples images.

    Raises
    ------
    UsageError
        For no rows or unequal lengths.
    """
    if not len(predicted) == len(target) == len(groups):
        raise UsageError(
            f"predictions, targets and groups must be equally long, not {len(predicted)}, "
            f"{len(target)} and {len(groups)}."
        )
    if len(target) == 0:
        raise UsageError("accuracy of no rows is not defined.")
    correct, sizes = _per_group(predicted == target, groups)  # (G,) each
    value = float(correct.sum() / sizes.sum())
    return Accuracy(value, len(target), len(sizes), _interval(correct, sizes, seed), chance)


def chance_level(train_target: Ints, test_target: Ints, n_classes: int) -> Chance:
    """Return the accuracy on the test rows of the two rules that use no feature."""
    majority = int(np.bincount(train_target, minlength=n_classes).argmax())
    return Chance(float((test_target == majority).mean()), 1 / n_classes)


def wilson(value: float, n: int) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of a proportion `value` of n independent trials."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    # Method 3 of Newcombe, Statistics in Medicine 17 (1998), with the ends cut off at 0 and 1.
    centre = value + z * z / (2 * n)
    half = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def confusion_matrix(predicted: Ints, target: Ints, n_classes: int) -> Ints:
    """Return counts (C, C), int64: rows are true classes, columns predicted ones."""
    cells = np.bincount(target * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def per_class_accuracy(confusion: Ints) -> Floats:
    """Return the accuracy of each class, (C,); NaN for a class without rows."""
    sizes = confusion.sum(axis=1)  # (C,)
    shares: Floats = np.full(len(sizes), np.nan)
    np.divide(confusion.diagonal(), sizes, out=shares, where=sizes > 0)
    return shares


def _per_group(correct: npt.NDArray[Any], groups: Ints) -> tuple[Ints, Ints]:
    """Return correct answers and rows of each group, (G,) each."""
    _, number = np.unique(groups, return_inverse=True)  # (n,): 0 … G - 1
    sizes = np.bincount(number)  # (G,)
    return np.bincount(number, weights=correct).astype(np.int64), sizes.astype(np.int64)


def _interval(correct: Ints, sizes: Ints, seed: int) -> Interval:
    """Return the interval of (correct rows) / (rows), both (G,), from R draws of the groups."""
    value, n_groups = float(correct.sum() / sizes.sum()), len(sizes)
    if sizes.max() == 1:
        return Interval(*wilson(value, n_groups), method=WILSON_ROWS)
    # Resampling sees no spread if all images are right, all are wrong, or there is only one; an
    # interval of width zero would claim certainty. Counting images as trials does not.
    if n_groups == 1 or value in (0.0, 1.0):
        return Interval(*wilson(value, n_groups), method=WILSON_IMAGES)
    if n_groups < SMALL_SAMPLE:
        return t_interval(value, (correct - value * sizes) / sizes.sum(), T_IMAGES)
    # Groups with equal counts are interchangeable: drawing G groups is one multinomial draw over
    # the K distinct pairs, at most 50 for 49 windows, however many images.
    pairs, multiplicity = np.unique(np.stack([correct, sizes], axis=1), axis=0, return_counts=True)
    shares = multiplicity / n_groups  # (K,)
    draws = np.random.default_rng(seed).multinomial(n_groups, shares, size=RESAMPLES)  # (R, K)
    resampled = draws @ pairs  # (R, 2): correct rows, rows
    return Interval(*percentile_interval(resampled[:, 0] / resampled[:, 1]), BOOTSTRAP)
