"""Means with intervals: regions of one image are not independent, so images are resampled.

A mean average precision has two intervals. With the gallery fixed, images are resampled as queries
only: it estimates the score of other queries in this gallery. The interval over images as queries
and gallery estimates the score of new images, and is about twice as wide; if few images make it
narrower by chance, it takes the ends of the other one.

Shapes: n values, G images, C parts with a value, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pa.evaluate.gallery_effects import GalleryEffects
from pa.evaluate.intervals import (
    BOOTSTRAP,
    CONFIDENCE,
    GALLERY,
    RESAMPLES,
    SMALL_SAMPLE,
    T_IMAGES,
    Interval,
    percentile_interval,
    t_interval,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Drawn: TypeAlias = tuple[Floats, Floats]  # sums and counts of the resamples, (R, C) each


@dataclass(frozen=True)
class Mean:
    """The mean of n values from `n_images` images, with its interval; fractions of 1.

    `interval` is None if all values are of one image. `fixed_gallery` is the narrower interval of
    a mean average precision that holds the gallery fixed. `chance` is the expected mean of a
    random ranking, or of random neighbours; `prior` the mean share of relevant items. Both are NaN
    where they are not defined, as for a difference.
    """

    value: float
    n: int
    n_images: int
    interval: Interval | None
    fixed_gallery: Interval | None = None
    chance: float = float("nan")
    prior: float = float("nan")

    @property
    def low(self) -> float:
        """Lower end of the interval, NaN without one."""
        return float("nan") if self.interval is None else self.interval.low

    @property
    def high(self) -> float:
        """Upper end of the interval, NaN without one."""
        return float("nan") if self.interval is None else self.interval.high

    @property
    def interval_method(self) -> str:
        return "" if self.interval is None else self.interval.method

    @property
    def chance_level(self) -> float | None:
        """Expected score of a random ranking; None where it is not defined."""
        return None if np.isnan(self.chance) else self.chance

    def to_json(self) -> dict[str, Any]:
        interval, fixed = self.interval, self.fixed_gallery
        fields: dict[str, Any] = {
            "value": self.value,
            "n": self.n,
            "n_images": self.n_images,
            "interval": None if interval is None else [interval.low, interval.high],
            "interval_method": None if interval is None else interval.method,
            "confidence": CONFIDENCE,
        }
        if fixed is not None:
            fields["interval_fixed_gallery"] = [fixed.low, fixed.high]
            fields["interval_fixed_gallery_method"] = fixed.method
        if not np.isnan(self.chance):
            fields |= {"chance": self.chance, "above_chance": self.value - self.chance}
        if not np.isnan(self.prior):
            fields["prior"] = self.prior
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Mean:
        def interval(name: str) -> Interval | None:
            ends = fields.get(name)
            return ends and Interval(ends[0], ends[1], str(fields.get(f"{name}_method")))

        return cls(
            fields["value"],
            fields["n"],
            fields["n_images"],
            interval("interval"),
            interval("interval_fixed_gallery"),
            fields.get("chance", float("nan")),
            fields.get("prior", float("nan")),
        )


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
    table = _Table.of(values[valid], image[valid], parts[valid], shape)
    drawn = table.resample(seed)
    value, n = float(values[valid].mean()), int(valid.sum())
    least = -1.0 if chance is None else 0.0  # a difference can be negative, a score cannot
    levels = [_levels(chance, prior, valid & (parts == part)) for part in table.parts]
    acting: list[Floats | None] = [None, None, *[None] * len(table.parts)]
    if effects is not None:
        acting = [
            None if effect is None else np.bincount(image, effect, shape[0]).astype(np.float64)
            for effect in (effects.all / n, effects.over_classes, *table.by_part(effects, parts))
        ]
    by_all, over_classes, *by_part = acting  # (G,) each: influences of the images in the gallery
    return Means(
        table.overall(value, drawn, by_all, least).mean(*_levels(chance, prior, valid)),
        table.over_parts(drawn, over_classes, least).mean(*np.mean(levels, axis=0).tolist()),
        {
            names[part]: table.of_part(column, drawn, by_part[column], least).mean(*levels[column])
            for column, part in enumerate(table.parts.tolist())
        },
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Sums and counts (G, C) of values by image and part, and the numbers of the parts (C,)."""

    sums: Floats
    counts: Ints
    parts: Ints

    @classmethod
    def of(cls, values: Floats, image: Ints, parts: Ints, shape: tuple[int, int]) -> _Table:
        """Add up values by image and part, numbers below `shape`; drop parts without a value."""
        cell, n_cells = np.ravel_multi_index((image, parts), shape), shape[0] * shape[1]
        sums = np.bincount(cell, values, n_cells).astype(np.float64).reshape(shape)
        counts = np.bincount(cell, minlength=n_cells).reshape(shape)
        kept = np.flatnonzero(counts.sum(axis=0))
        return cls(sums[:, kept], counts[:, kept], kept)

    @cached_property
    def sizes(self) -> Ints:
        """(C,) number of values of each part."""
        return self.counts.sum(axis=0)  # type: ignore[no-any-return]

    @cached_property
    def means(self) -> Floats:
        """(C,) mean of each part."""
        means: Floats = self.sums.sum(axis=0) / self.sizes
        return means

    @cached_property
    def influences(self) -> Floats:
        """(G, C) influence of each image, as queries, on the mean of each part."""
        influences: Floats = (self.sums - self.means * self.counts) / self.sizes
        return influences

    def resample(self, seed: int) -> Drawn:
        """Return sums and counts, (R, C) each, of R draws of G images with replacement."""
        rng = np.random.default_rng(seed)
        table = np.concatenate([self.sums, self.counts], axis=1)  # (G, 2 C)
        n_images, width = table.shape
        out = np.empty((RESAMPLES, width))
        for draw in range(RESAMPLES):
            times = np.bincount(rng.integers(n_images, size=n_images), minlength=n_images)  # (G,)
            out[draw] = times @ table
        return out[:, : width // 2], out[:, width // 2 :]

    def by_part(self, effects: GalleryEffects, parts: Ints) -> list[Floats | None]:
        """Return the effects (n,) of the rows in the gallery on the mean of each part."""
        if effects.of_class is None:
            return [None] * len(self.parts)
        columns = np.searchsorted(np.unique(parts), self.parts)  # classes include empty parts
        return [effects.of_class[:, c] / n for c, n in zip(columns, self.sizes, strict=True)]

    def overall(
        self, value: float, drawn: Drawn, gallery: Floats | None, least: float
    ) -> _Estimate:
        counts = self.counts.sum(axis=1)  # (G,)
        with np.errstate(invalid="ignore"):  # NaN for a resample of images without a value
            draws = drawn[0].sum(axis=1) / drawn[1].sum(axis=1)  # (R,)
        influences = (self.sums.sum(axis=1) - value * counts) / counts.sum()
        return _Estimate(value, draws, influences, counts, gallery, least)

    def over_parts(self, drawn: Drawn, gallery: Floats | None, least: float) -> _Estimate:
        with np.errstate(invalid="ignore"):  # NaN for a resample without the part
            ratios = drawn[0] / drawn[1]  # (R, C)
        valid = ~np.isnan(ratios)
        totals = np.where(valid, ratios, 0).sum(axis=1)  # (R,)
        means = totals / np.maximum(valid.sum(axis=1), 1)
        return _Estimate(
            float(self.means.mean()),
            np.where(valid.any(axis=1), means, np.nan),
            self.influences.mean(axis=1),
            self.counts.sum(axis=1),
            gallery,
            least,
        )

    def of_part(self, column: int, drawn: Drawn, gallery: Floats | None, least: float) -> _Estimate:
        with np.errstate(invalid="ignore"):
            draws = drawn[0][:, column] / drawn[1][:, column]  # (R,)
        value, influences = float(self.means[column]), self.influences[:, column]
        return _Estimate(value, draws, influences, self.counts[:, column], gallery, least)


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A mean and what its intervals are computed from.

    `draws` (R,) are the means of the resamples; `influences` (G,) those of each image as queries,
    `gallery` (G,) those in the gallery; `counts` (G,) the number of its values.
    """

    value: float
    draws: Floats
    influences: Floats
    counts: Ints
    gallery: Floats | None
    least: float

    def mean(self, chance: float, prior: float) -> Mean:
        n, n_images = int(self.counts.sum()), int((self.counts > 0).sum())
        if n_images < 2:
            return Mean(self.value, n, n_images, None, None, chance, prior)
        if n_images < SMALL_SAMPLE:
            narrow = t_interval(
                self.value, self.influences, T_IMAGES, n_images=n_images, least=self.least
            )
        else:
            narrow = Interval(*percentile_interval(self.draws), BOOTSTRAP)
        if self.gallery is None:
            return Mean(self.value, n, n_images, narrow, None, chance, prior)
        both = self.influences + self.gallery  # (G,)
        wide = t_interval(self.value, both, GALLERY, n_images=n_images, least=self.least)
        if wide.high - wide.low < narrow.high - narrow.low:
            # The effects of few images as queries and in the gallery can cancel out by chance.
            wide = Interval(narrow.low, narrow.high, GALLERY)
        return Mean(self.value, n, n_images, wide, narrow, chance, prior)


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
