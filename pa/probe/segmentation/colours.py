"""Colours of classes that can be told apart, with common kinds of colour blindness too."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pa.figures.overlay import Colour, oklab

Floats = npt.NDArray[np.float64]

# Okabe & Ito 2008, without black: made to be told apart with every kind of colour vision.
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
OTHER: Colour = (96, 96, 96)  # classes without a colour of their own
MOST = 20  # classes with a colour of their own; of more, neighbours look alike

# What is neither: colours must not look like classes without one, or like ignored pixels.
_TAKEN = (OTHER, (224, 224, 224))
_LEVELS = range(0, 256, 51)
_LIGHTNESS, _CHROMA = (0.32, 0.95), 0.07

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB: protanopia and deuteranopia.
_BLIND = np.array(
    [
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)


@lru_cache(maxsize=4)
def palette(n: int) -> tuple[Colour, ...]:
    """n colours: those of Okabe and Ito, then each as far from all before it as can be.

    Far in OKLab, for the eye that tells them apart worst: of normal vision, without red cones, and
    without green ones. Raises `ValueError` for more than `MOST`.
    """
    if n > MOST:
        raise ValueError(f"{n} colours cannot be told apart; at most {MOST}.")
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(grid)
    light = (lab[:, 0] > _LIGHTNESS[0]) & (lab[:, 0] < _LIGHTNESS[1])
    candidates = grid[light & (np.hypot(lab[:, 1], lab[:, 2]) > _CHROMA)]
    seen = as_seen(candidates)
    nearest = distances(seen, as_seen(np.array(_TAKEN + OKABE_ITO))).min(axis=1)
    chosen = list(OKABE_ITO[:n])
    while len(chosen) < n:
        best = int(nearest.argmax())
        red, green, blue = candidates[best].tolist()
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, distances(seen, seen[:, best : best + 1])[:, 0])
    return tuple(chosen)


def as_seen(rgb: npt.NDArray[np.int64]) -> Floats:
    """8-bit sRGB (N, 3) in OKLab for three kinds of eyes, (3, N, 3): normal, no red, no green."""
    level = rgb / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    blind = (linear @ _BLIND.transpose(0, 2, 1)).clip(0, 1)
    encoded = np.where(blind <= 0.0031308, 12.92 * blind, 1.055 * blind ** (1 / 2.4) - 0.055)
    return np.stack([oklab(rgb), *(oklab(255 * one) for one in encoded)])


def distances(one: Floats, other: Floats) -> Floats:
    """Distance in OKLab (N, M) of colours as seen, (3, N, 3) and (3, M, 3): the least."""
    apart: Floats = np.linalg.norm(one[:, :, None] - other[:, None], axis=-1).min(axis=0)
    return apart
