"""Scores and their confidence intervals over images.

The influence of an image on a statistic is the change of the statistic per unit of the image's
weight, at equal weights: a linear statistic changes by it when the image is drawn once more. The
sum of squared influences estimates the variance (the infinitesimal jackknife: Jaeckel 1972; Efron,
*The Jackknife, the Bootstrap and Other Resampling Plans*, 1982).

Shapes: G images, R resamples. Values are fractions of 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
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

    @property
    def ends(self) -> list[float]:
        return [self.low, self.high]

    def text(self, form: str = ".2f") -> str:
        """Return the ends in percent."""
        return f"{100 * self.low:{form}} to {100 * self.high:{form}}"


@dataclass(frozen=True)
class Score:
    """A score of `n` values (rows, queries or pixels) from `n_images` images; fractions of 1.

    `interval` is None if the values cannot show a spread, such as those of a single image. The
    subclass of each kind of score adds its level of chance.
    """

    IMAGES: ClassVar[str] = "n_images"  # name of `n_images` in JSON
    NO_INTERVAL: ClassVar[str] = ""  # the reason for a missing interval

    value: float
    n: int
    n_images: int
    interval: Interval | None

    @property
    def low(self) -> float:
        """Lower end of the interval, NaN without one."""
        return math.nan if self.interval is None else self.interval.low

    @property
    def high(self) -> float:
        """Upper end of the interval, NaN without one."""
        return math.nan if self.interval is None else self.interval.high

    @property
    def interval_method(self) -> str:
        """How the interval was computed, or why it is missing."""
        return self.NO_INTERVAL if self.interval is None else self.interval.method

    @property
    def chance_level(self) -> float | None:
        """The score without any knowledge of the features; None where it is not defined."""
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "n": self.n,
            self.IMAGES: self.n_images,
            "interval": self.interval and self.interval.ends,
            "interval_method": self.interval_method or None,
            "confidence": CONFIDENCE,
        }

    @classmethod
    def read(cls, fields: Any) -> Self:
        """Return the score that `to_json` wrote. Raises `ValueError` for anything else."""
        try:
            value, n, n_images = fields["value"], fields["n"], fields[cls.IMAGES]
            if not _is_finite(value):
                raise ValueError("expected a score with a finite value")
            if not -1 <= value <= 1:
                raise ValueError(f"value is {value}, expected a fraction of 1")
            for name, count in (("n", n), (cls.IMAGES, n_images)):
                if not isinstance(count, int):
                    raise ValueError(f"{name} is {count!r}, expected a whole number")
            interval = read_interval(fields, "interval")
            return cls(value, n, n_images, interval, **cls._read_more(fields))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a {cls.__name__} ({error!r})") from None

    @classmethod
    def _read_more(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that a subclass adds."""
        return {}


def read_interval(fields: dict[str, Any], name: str) -> Interval | None:
    """Return the interval of a score in JSON. Raises `ValueError` unless its ends are in order."""
    ends = fields.get(name)
    if ends is None:
        return None
    is_pair = isinstance(ends, list) and len(ends) == 2 and all(map(_is_finite, ends))
    if not is_pair or ends[0] > ends[1]:
        raise ValueError(f"{name} is {ends!r}, expected two numbers in order, or null")
    return Interval(ends[0], ends[1], str(fields.get(f"{name}_method")))


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """Return the percentile interval of a statistic from its resamples (R,), ignoring NaN."""
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
