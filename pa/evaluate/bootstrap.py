"""Means with intervals: regions of one image are not independent, so images are resampled.

Shapes: n values, G images, C parts, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
METHOD = "bootstrap over images"


@dataclass(frozen=True)
class Mean:
    """The mean of n values from `n_images` images, with its interval; fractions of 1.

    `low` and `high` are NaN where there is one image only: nothing can be said then. `chance` is
    the mean that knowing nothing gives, NaN where there is no such thing (a difference has none).
    """

    value: float
    low: float
    high: float
    n: int
    n_images: int
    chance: float = float("nan")

    def to_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "value": self.value,
            "n": self.n,
            "n_images": self.n_images,
            "interval": None if np.isnan(self.low) else [self.low, self.high],
            "interval_method": METHOD,
            "confidence": CONFIDENCE,
        }
        if not np.isnan(self.chance):
            fields |= {"chance": self.chance, "above_chance": self.value - self.chance}
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Mean:
        """A mean as `to_json` gave it."""
        low, high = fields["interval"] or (float("nan"), float("nan"))
        chance = fields.get("chance", float("nan"))
        return cls(fields["value"], low, high, fields["n"], fields["n_images"], chance)


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
    seed: int = 0,
) -> Means:
    """Means of `values` (n,), n > 0, whose images and parts are numbered by `images` and `parts`.

    Percentile intervals of the resampled ratios (sum of values) / (number of values). Equal images
    and seeds give equal resamples, so the interval of a difference of paired values is a paired
    one. `chance` (n,) is what chance gives for each value. `names` are those of the C parts.
    """
    _, image = np.unique(images, return_inverse=True)
    n_images, n_parts = int(image.max()) + 1, len(names)
    cell = image * n_parts + parts
    sums = np.bincount(cell, values, n_images * n_parts).reshape(n_images, n_parts)
    counts = np.bincount(cell, minlength=n_images * n_parts).reshape(n_images, n_parts)
    there = np.flatnonzero(counts.sum(axis=0))
    sums, counts = sums[:, there], counts[:, there]
    resampled = _resample(sums, counts, seed)  # (R, C): sums, counts
    level = np.zeros(len(values)) if chance is None else chance
    of_part = [float(level[parts == part].mean()) for part in there]
    no_chance = chance is None

    def mean(value: float, draws: Floats, n: int, from_images: int, known: float) -> Mean:
        low, high = _interval(draws) if from_images > 1 else (float("nan"), float("nan"))
        return Mean(value, low, high, n, from_images, float("nan") if no_chance else known)

    with np.errstate(invalid="ignore"):  # a resample without a part has no mean of it
        ratios = resampled[0] / resampled[1]
        total = resampled[0].sum(axis=1) / resampled[1].sum(axis=1)
    values_of_parts = sums.sum(axis=0) / counts.sum(axis=0)
    return Means(
        overall=mean(float(values.mean()), total, len(values), n_images, float(level.mean())),
        over_parts=mean(
            float(values_of_parts.mean()),
            _mean_of_there(ratios),
            len(values),
            n_images,
            float(np.mean(of_part)),
        ),
        parts={
            names[part]: mean(
                float(values_of_parts[place]),
                ratios[:, place],
                int(counts[:, place].sum()),
                int((counts[:, place] > 0).sum()),
                of_part[place],
            )
            for place, part in enumerate(there)
        },
    )


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
    means: Floats = np.where(there, ratios, 0).sum(axis=1) / there.sum(axis=1)
    return means


def _interval(draws: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)
