"""Means with intervals: regions of one image are not independent, so images are resampled.

A mean average precision has two intervals. With the gallery fixed, images are resampled as queries
only: it estimates the score of other queries in this gallery. The interval over images as queries
and gallery estimates the score of new images, and is about twice as wide; if few images make it
narrower by chance, it takes the ends of the other one.

Shapes: n values, G images, C parts with a value, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pa.evaluate.gallery_effects import GalleryEffects
from pa.evaluate.intervals import (
    BOOTSTRAP,
    GALLERY,
    RESAMPLES,
    SMALL_SAMPLE,
    T_IMAGES,
    Floats,
    Interval,
    Ints,
    Score,
    percentile_interval,
    read_interval,
    t_interval,
)


@dataclass(frozen=True)
class Mean(Score):
    """The mean of n values.

    `fixed_gallery` is the narrower interval of a mean average precision that holds the gallery
    fixed. `chance` is the expected mean of a random ranking, or of random neighbours; `prior` the
    mean share of relevant items. Both are NaN where they are not defined, as for a difference.
    """

    fixed_gallery: Interval | None = None
    chance: float = math.nan
    prior: float = math.nan

    @property
    def chance_level(self) -> float | None:
        return None if math.isnan(self.chance) else self.chance

    def to_json(self) -> dict[str, Any]:
        fields = super().to_json()
        if self.fixed_gallery is not None:
            fields["interval_fixed_gallery"] = self.fixed_gallery.ends
            fields["interval_fixed_gallery_method"] = self.fixed_gallery.method
        if not math.isnan(self.chance):
            fields |= {"chance": self.chance, "above_chance": self.value - self.chance}
        if not math.isnan(self.prior):
            fields["prior"] = self.prior
        return fields

    @classmethod
    def _read_more(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "fixed_gallery": read_interval(fields, "interval_fixed_gallery"),
            "chance": fields.get("chance", math.nan),
            "prior": fields.get("prior", math.nan),
        }


@dataclass(frozen=True)
class Means:
    """The mean over all values, over the means of the parts, and of each part that has values."""

    overall: Mean
    over_parts: Mean
    parts: dict[str, Mean]


def bootstrap_means(
    values: Floats,
    images: Ints,
    parts: Ints,
    names: tuple[str, ...],
    *,
    chance: Floats | None = None,
    prior: Floats | None = None,
    effects: GalleryEffects | None = None,
    seed: int = 0,
) -> Means:
    """Return the means of values with intervals over images.

    The method is percentiles of resampled ratios (sum of values) / (number of values) from 20
    images on, Student's t below. Equal images and seeds give equal resamples, so that the interval
    of a difference of paired values is a paired one.

    Parameters
    ----------
    values : array of shape (n,)
        NaN for a row without a value.
    images, parts : integer arrays of shape (n,)
        Image and part of each row.
    names : tuple of str
        Names of the parts.
    chance, prior : arrays of shape (n,), optional
        Averaged like the values.
    effects : GalleryEffects, optional
        Effects of the n rows as items of the gallery. The interval is then over images as queries
        and gallery, and the one without them is `Mean.fixed_gallery`.
    """
    valid = ~np.isnan(values)
    _, image = np.unique(images, return_inverse=True)  # (n,): 0 … G - 1
    shape = int(image.max()) + 1, len(names)
    cell = np.ravel_multi_index((image[valid], parts[valid]), shape)
    sums = np.bincount(cell, values[valid], math.prod(shape)).astype(np.float64).reshape(shape)
    counts = np.bincount(cell, minlength=math.prod(shape)).reshape(shape)
    present = np.flatnonzero(counts.sum(axis=0))  # (C,): parts with a value
    value = float(values[valid].mean())
    # The value is the mean of the values themselves: sums over images round differently.
    estimates = _estimates(value, sums[:, present], counts[:, present], seed)
    levels = [_levels(chance, prior, valid & (parts == part)) for part in present]
    levels = [_levels(chance, prior, valid), tuple(np.mean(levels, axis=0).tolist()), *levels]
    # The influences of each image in the gallery, like the estimates: of all, over parts, of each.
    in_gallery: list[Floats | None] = [None] * len(estimates)
    if effects is not None:
        of_rows: list[Floats | None] = [effects.all / valid.sum(), effects.over_classes]
        if effects.of_class is None:
            of_rows += [None] * len(present)
        else:
            # The classes of the effects include parts all of whose values are NaN.
            columns = np.searchsorted(np.unique(parts), present)
            sizes = counts.sum(axis=0)[present]
            of_rows += [effects.of_class[:, c] / n for c, n in zip(columns, sizes, strict=True)]
        in_gallery = [
            None if row is None else np.bincount(image, row, shape[0]).astype(np.float64)
            for row in of_rows
        ]
    # Only a score has a chance level; a difference has none, and can be negative.
    least = -1.0 if chance is None else 0.0
    overall, over_parts, *of_parts = (
        estimate.mean(gallery, least, *level)
        for estimate, gallery, level in zip(estimates, in_gallery, levels, strict=True)
    )
    named = zip((names[part] for part in present), of_parts, strict=True)
    return Means(overall, over_parts, dict(named))


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A mean, what its intervals are computed from, and the number of values of each image (G,).

    `draws` (R,) are the means of the resamples, `influences` (G,) those of each image as queries.
    """

    value: float
    draws: Floats
    influences: Floats
    counts: Ints

    def mean(self, gallery: Floats | None, least: float, chance: float, prior: float) -> Mean:
        """Return the mean with its intervals; `gallery` (G,) are the influences in the gallery."""
        n, n_images = int(self.counts.sum()), int((self.counts > 0).sum())
        if n_images < 2:
            return Mean(self.value, n, n_images, None, None, chance, prior)
        if n_images < SMALL_SAMPLE:
            narrow = t_interval(
                self.value, self.influences, T_IMAGES, n_images=n_images, least=least
            )
        else:
            narrow = Interval(*percentile_interval(self.draws), BOOTSTRAP)
        if gallery is None:
            return Mean(self.value, n, n_images, narrow, None, chance, prior)
        both = self.influences + gallery  # (G,)
        wide = t_interval(self.value, both, GALLERY, n_images=n_images, least=least)
        if wide.high - wide.low < narrow.high - narrow.low:
            # The effects of few images as queries and in the gallery can cancel out by chance.
            wide = Interval(narrow.low, narrow.high, GALLERY)
        return Mean(self.value, n, n_images, wide, narrow, chance, prior)


def _estimates(value: float, sums: Floats, counts: Ints, seed: int) -> list[_Estimate]:
    """Return the estimates of the mean `value` of all, of the mean over parts, and of each part.

    `sums` and `counts` (G, C) are those of the values by image and part.
    """
    of_image, sizes = counts.sum(axis=1), counts.sum(axis=0)  # (G,), (C,)
    means = sums.sum(axis=0) / sizes  # (C,)
    influences = (sums - means * counts) / sizes  # (G, C) of each image on the mean of each part
    # R draws of G images with replacement, as sums and counts (R, 2 C) in one matrix product each.
    rng = np.random.default_rng(seed)
    table = np.concatenate([sums, counts], axis=1)  # (G, 2 C)
    n_images, width = table.shape
    drawn = np.empty((RESAMPLES, width))
    for draw in range(RESAMPLES):
        times = np.bincount(rng.integers(n_images, size=n_images), minlength=n_images)  # (G,)
        drawn[draw] = times @ table
    drawn_sums, drawn_counts = drawn[:, : width // 2], drawn[:, width // 2 :]
    with np.errstate(invalid="ignore"):  # NaN for a resample without a value, or without the part
        draws = drawn_sums.sum(axis=1) / drawn_counts.sum(axis=1)  # (R,)
        by_part = drawn_sums / drawn_counts  # (R, C)
    # The mean over parts of a resample is that over the parts which it contains.
    has_part = ~np.isnan(by_part)
    totals = np.where(has_part, by_part, 0).sum(axis=1) / np.maximum(has_part.sum(axis=1), 1)
    draws_over_parts = np.where(has_part.any(axis=1), totals, np.nan)  # (R,)
    of_all = (sums.sum(axis=1) - value * of_image) / of_image.sum()  # (G,)
    return [
        _Estimate(value, draws, of_all, of_image),
        _Estimate(float(means.mean()), draws_over_parts, influences.mean(axis=1), of_image),
        *(
            _Estimate(float(mean), by_part[:, c], influences[:, c], counts[:, c])
            for c, mean in enumerate(means)
        ),
    ]


def influence(values: Floats, effects: GalleryEffects) -> Floats:
    """Return the influence (n,) of each row, as query and in the gallery, on the mean of `values`.

    The squares of its sums over images add up to the variance of the mean.
    """
    valid = ~np.isnan(values)
    as_query = np.where(valid, values - values[valid].mean(), 0.0)
    result: Floats = (as_query + effects.all) / valid.sum()
    return result


def _levels(chance: Floats | None, prior: Floats | None, rows: Any) -> tuple[float, float]:
    """Return the means of chance and prior over some rows; NaN if they are not known."""
    nan = float("nan")
    return (
        nan if chance is None else float(chance[rows].mean()),
        nan if prior is None else float(prior[rows].mean()),
    )
