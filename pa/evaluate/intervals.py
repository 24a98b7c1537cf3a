"""Standard errors over images from influences, and what an interval is called.

The influence of an image on a statistic is the change of the statistic per unit of the image's
weight, at equal weights: a linear statistic changes by it when the image is drawn once more. The
sum of squared influences estimates the variance (the infinitesimal jackknife: Jaeckel 1972; Efron,
*The Jackknife, the Bootstrap and Other Resampling Plans*, 1982).

Shapes: G images, K statistics.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
SMALL_SAMPLE = 20  # images; below, percentiles of resamples are too narrow (benchmarks/coverage.py)

BOOTSTRAP = "bootstrap over images"
T_IMAGES = "t over images"
GALLERY = "t over images as queries and gallery"


def t_quantile(n_images: int) -> float:
    """Two-sided quantile of Student's t at `CONFIDENCE` with n_images - 1 degrees of freedom."""
    from scipy.special import stdtrit  # loaded only where an interval is computed

    return float(stdtrit(n_images - 1, (1 + CONFIDENCE) / 2))


def half_width(influences: Floats, n_images: int | None = None) -> float:
    """Half the width of the t interval of a statistic from the influences (G,) of its images.

    `n_images` is the number of images with a value, where the others act through the gallery only.
    """
    n = len(influences) if n_images is None else n_images
    return t_quantile(n) * float(np.sqrt((influences**2).sum() * n / (n - 1)))
