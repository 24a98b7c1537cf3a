"""Means with intervals: regions of one image are not independent, so images are resampled.

A mean average precision has two intervals. With the gallery fixed, images are resampled as queries
only: it states what other queries of this gallery would score. The one over images as queries and
gallery states what new images would score, and is about twice as wide; where an estimate from few
images is narrower, it takes the ends of the other one.

Shapes: n values, G images, C parts, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.evaluate.gallery_effects import GalleryEffects
from pa.evaluate.intervals import BOOTSTRAP, CONFIDENCE, GALLERY, SMALL_SAMPLE, T_IMAGES, half_width

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A confidence interval and its method."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Mean:
    """The mean of n values from `n_images` images, with its interval; fractions of 1.

    `interval` is None where all values are of one image. `fixed_gallery` is the narrower interval
    of a mean average precision that holds the gallery fixed. `chance` is the expected mean of a
    random ranking, or of neighbours drawn at random; `prior` the mean share of relevant items. Both
    are NaN where they are not defined: a difference has neither.
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

    def to_json(self) -> dict[str, Any]:
        method = None if self.interval is None else self.interval.method
        fields: dict[str, Any] = {
            "value": self.value,
            "n": self.n,
            "n_images": self.n_images,
            "interval": _ends(self.interval),
            "interval_method": method,
            "confidence": CONFIDENCE,
        }
        if self.fixed_gallery is not None:
            fields["interval_fixed_gallery"] = _ends(self.fixed_gallery)
            fields["interval_fixed_gallery_method"] = self.fixed_gallery.method
        if not np.isnan(self.chance):
            fields |= {"chance": self.chance, "above_chance": self.value - self.chance}
        if not np.isnan(self.prior):
            fields["prior"] = self.prior
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Mean:
        """Read a mean that `to_json` wrote."""
        return cls(
            fields["value"],
            fields["n"],
            fields["n_images"],
            _interval_of(fields, "interval"),
            _interval_of(fields, "interval_fixed_gallery"),
            fields.get("chance", float("nan")),
            fields.get("prior", float("nan")),
        )


@dataclass(frozen=True)
class Means:
    """The mean over all values, the mean over the means of the parts, and the mean of each part.

    Parts without a value are left out.
    """

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
    """Means of `values` (n,), NaN where there is none, whose `images` and `parts` are numbered.

    Intervals resample images: percentiles of the resampled ratios (sum of values) / (number of
    values) from 20 images on, Student's t below. Equal images and seeds give equal resamples, so
    the interval of a difference of paired values is a paired one. With `effects` of the n rows as
    items of the gallery, the interval is over images as queries and gallery, and the one above
    becomes `Mean.fixed_gallery`. `chance` and `prior` (n,) are averaged like the values. `names`
    are those of the C parts.
    """
    there = ~np.isnan(values)
    _, image = np.unique(images, return_inverse=True)
    n_images, n_parts = int(image.max()) + 1, len(names)
    cell = (image * n_parts + parts)[there]
    sums = np.bincount(cell, values[there], n_images * n_parts).reshape(n_images, n_parts)
    counts = np.bincount(cell, minlength=n_images * n_parts).reshape(n_images, n_parts)
    kept = np.flatnonzero(counts.sum(axis=0))
    sums, counts = sums[:, kept], counts[:, kept]
    sizes = counts.sum(axis=0)
    means = sums.sum(axis=0) / sizes
    value = float(values[there].mean())
    resampled = _resample(sums, counts, seed)  # (R, C): sums, counts
    # (G, C) and (G,): the influence of each image, as queries, on the mean of each part and of all.
    of_parts = (sums - means * counts) / sizes
    of_all = (sums.sum(axis=1) - value * counts.sum(axis=1)) / len(values[there])

    def level(of: Floats | None, part: int | None = None) -> float:
        chosen = there if part is None else there & (parts == part)
        return float("nan") if of is None else float(of[chosen].mean())

    # A difference reaches from -1 to 1, a share or an average precision from 0 to 1.
    least = -1.0 if chance is None else 0.0

    def mean(
        value: float,
        draws: Floats,
        influences: Floats,
        counts: Ints,
        by_gallery: Floats | None,
        levels: tuple[float, float],
    ) -> Mean:
        n, of_images = int(counts.sum()), int((counts > 0).sum())
        narrow = _interval(value, draws, influences, of_images, least)
        if narrow is None or by_gallery is None:
            return Mean(value, n, of_images, narrow, None, *levels)
        both = influences + np.bincount(image, by_gallery, n_images)
        wide = _t_interval(value, both, of_images, GALLERY, least)
        if wide.high - wide.low < narrow.high - narrow.low:
            # The effects of few images as queries and in the gallery can cancel out by chance.
            wide = Interval(narrow.low, narrow.high, GALLERY)
        return Mean(value, n, of_images, wide, narrow, *levels)

    with np.errstate(invalid="ignore"):  # a resample without a part has no mean of it
        ratios = resampled[0] / resampled[1]
        total = resampled[0].sum(axis=1) / resampled[1].sum(axis=1)
    of_part = {part: (level(chance, part), level(prior, part)) for part in kept.tolist()}
    return Means(
        overall=mean(
            value,
            total,
            of_all,
            counts.sum(axis=1),
            None if effects is None else effects.all / len(values[there]),
            (level(chance), level(prior)),
        ),
        over_parts=mean(
            float(means.mean()),
            _mean_of_there(ratios),
            of_parts.mean(axis=1),
            counts.sum(axis=1),
            None if effects is None else effects.over_classes,
            tuple(np.mean(list(of_part.values()), axis=0).tolist()),
        ),
        parts={
            names[part]: mean(
                float(means[place]),
                ratios[:, place],
                of_parts[:, place],
                counts[:, place],
                None
                if effects is None or effects.of_class is None
                else effects.of_class[:, np.searchsorted(np.unique(parts), part)] / sizes[place],
                of_part[part],
            )
            for place, part in enumerate(kept.tolist())
        },
    )


def influence(values: Floats, effects: GalleryEffects) -> Floats:
    """Influence of each row (n,), as a query and in the gallery, on the mean of `values` (n,).

    The squares of its sums over images add up to the variance of the mean.
    """
    there = ~np.isnan(values)
    as_query = np.where(there, values - values[there].mean(), 0.0)
    result: Floats = (as_query + effects.all) / there.sum()
    return result


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _interval_of(fields: dict[str, Any], name: str) -> Interval | None:
    ends = fields.get(name)
    return None if ends is None else Interval(ends[0], ends[1], str(fields.get(f"{name}_method")))


def _resample(sums: npt.NDArray[Any], counts: npt.NDArray[Any], seed: int) -> Floats:
    """Sums and counts (2, R, C) of R draws of G images with replacement."""
    rng = np.random.default_rng(seed)
    table = np.concatenate([sums, counts], axis=1)
    n_images, width = table.shape
    out = np.empty((RESAMPLES, width))
    for draw in range(RESAMPLES):
        times = np.bincount(rng.integers(n_images, size=n_images), minlength=n_images)
        out[draw] = times @ table
    return np.stack(np.split(out, 2, axis=1))


def _mean_of_there(ratios: Floats) -> Floats:
    there = ~np.isnan(ratios)
    means: Floats = np.where(there, ratios, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.where(there.any(axis=1), means, np.nan)


def _interval(
    value: float, draws: Floats, influences: Floats, n_images: int, least: float
) -> Interval | None:
    """Interval of a mean over `n_images` images; None for one image."""
    if n_images < 2:
        return None
    if n_images < SMALL_SAMPLE:
        return _t_interval(value, influences, n_images, T_IMAGES, least)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high), BOOTSTRAP)


def _t_interval(
    value: float, influences: Floats, n_images: int, method: str, least: float
) -> Interval:
    half = half_width(influences, n_images)
    return Interval(max(least, value - half), min(1.0, value + half), method)
