"""Confidence intervals over images.

The influence of an image on a statistic is the change of the statistic per unit of the image's
weight, at equal weights: a linear statistic changes by it when the image is drawn once more. The
sum of squared influences estimates the variance (the infinitesimal jackknife: Jaeckel 1972; Efron,
*The Jackknife, the Bootstrap and Other Resampling Plans*, 1982).

Shapes: G images, R resamples. Values are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000  # of a bootstrap: the ends of an interval vary by about 2 % of its width
SMALL_SAMPLE = 20  # images; below, percentiles of resamples are too narrow (benchmarks/coverage.py)

BOOTSTRAP = "bootstrap over images"
T_IMAGES = "t over images"
GALLERY = "t over images as queries and gallery"


@dataclass(frozen=True)
class Interval:
    """A confidence interval and its method."""

    low: float
    high: float
    method: str


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """Return the percentile interval of a statistic from its resamples (R,), NaN left out."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def t_interval(
    value: float,
    influences: Floats,
    method: str,
    *,
    n_images: int | None = None,
    least: float = 0.0,
) -> Interval:
    """Return Student's t interval of a statistic, cut off at `least` and 1.

    `influences` (G,) are those of its images. `n_images` is the number of images with a value, if
    others act through the gallery only.
    """
    n = len(influences) if n_images is None else n_images
    half = half_width(influences, n)
    return Interval(max(least, value - half), min(1.0, value + half), method)


def half_width(influences: Floats, n_images: int) -> float:
    """Return half the width of the t interval of a statistic of `n_images` images."""
    n = n_images
    return t_quantile(n) * float(np.sqrt((influences**2).sum() * n / (n - 1)))


def t_quantile(n_images: int) -> float:
    """Return the two-sided quantile of Student's t with n_images - 1 degrees of freedom."""
    from scipy.special import stdtrit  # loaded only if an interval is computed

    return float(stdtrit(n_images - 1, (1 + CONFIDENCE) / 2))
