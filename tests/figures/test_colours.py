"""Colours of classes that readers can distinguish, and class maps over their images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.figures.colours import CLASSES, OKABE_ITO, OPACITY, OTHER, borders, colours_of, overlay

Floats = npt.NDArray[np.float64]

SAME = 0.02  # smallest difference in OKLab that a person notices
FADED = (224, 224, 224)  # about the colour of ignored pixels

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB: protanopia and deuteranopia.
COLOUR_BLINDNESS = np.array(
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


def as_seen(rgb: npt.NDArray[np.int64]) -> Floats:
    """Return 8-bit sRGB (N, 3) in OKLab as normal, protanope and deuteranope eyes see it."""
    linear = linear_rgb(rgb)
    blind = (linear @ COLOUR_BLINDNESS.transpose(0, 2, 1)).clip(0, 1)  # (2, N, 3)
    encoded = np.where(blind <= 0.0031308, 12.92 * blind, 1.055 * blind ** (1 / 2.4) - 0.055)
    return np.stack([oklab(rgb), *(oklab(255 * colours) for colours in encoded)])  # (3, N, 3)


def linear_rgb(rgb: npt.NDArray[Any]) -> Floats:
    level = rgb / 255
    linear: Floats = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return linear  # IEC 61966-2-1


def distances(first: Floats, second: Floats) -> Floats:
    """Return the smallest OKLab distance (N, M) over three kinds of vision, (3, N or M, 3)."""
    apart = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)  # (3, N, M)
    smallest: Floats = apart.min(axis=0)
    return smallest


def oklab(rgb: npt.NDArray[Any]) -> Floats:
    """Return 8-bit sRGB (N, 3) in OKLab (Ottosson 2020), a perceptually uniform space."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    lms = np.cbrt(linear_rgb(rgb) @ np.array(to_lms).T)
    lab: Floats = lms @ np.array(to_lab).T
    return lab


def test_palette_is_distinguishable_with_every_colour_vision() -> None:
    colours = np.array([*CLASSES, OTHER, FADED])
    assert len(set(map(tuple, colours.tolist()))) == len(colours)
    seen = as_seen(colours)
    apart = distances(seen, seen)[~np.eye(len(colours), dtype=bool)]
    assert apart.min() > 3 * SAME
    assert CLASSES[:7] == OKABE_ITO


def test_simulated_colour_blindness_merges_red_and_green() -> None:
    """Two colours that are far apart for most readers are close for some."""
    red, green = np.array([[180, 90, 0]]), np.array([[110, 120, 0]])
    normal, _, without_green = np.linalg.norm(as_seen(red) - as_seen(green), axis=-1)[:, 0]
    assert normal > 3 * without_green


def test_colours_of_ranks_the_classes_drawn() -> None:
    truth = np.full((8, 8), 3, np.uint8)
    truth[:4], truth[0] = 7, IGNORED
    assert colours_of([truth, truth]) == [(3, CLASSES[0]), (7, CLASSES[1])]
    many = np.repeat(np.arange(30, dtype=np.uint8), 2).reshape(6, 10)
    colours = [colour for _, colour in colours_of([many])]
    assert colours == [*CLASSES, *[OTHER] * (30 - len(CLASSES))]


def test_classes_are_coloured_and_ignored_pixels_fade() -> None:
    classes = np.full((8, 12), IGNORED, np.uint8)
    classes[:4, :6], classes[:4, 6:] = 2, 18
    black = Image.new("RGB", (12, 8), (0, 0, 0))
    drawn = np.asarray(overlay(black, classes, {2: (200, 0, 0), 18: (0, 200, 0)}))
    assert drawn[1, 1].tolist() == [int(200 * OPACITY), 0, 0]
    assert drawn[1, 9].tolist() == [0, int(200 * OPACITY), 0]
    assert len(set(drawn[6, 3].tolist())) == 1


def test_borders() -> None:
    classes = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]], np.uint8)
    assert borders(classes).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, False, False],
    ]
