"""Colours of classes, and class maps laid over their images.

Shapes: N and M colours, H and W of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map

Colour = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

OPACITY = 0.62  # of a class over its image
IGNORED_OPACITY = 0.55  # of the white over ignored pixels: faded, still recognizable
_BORDER = 0.35  # brightness of the line between two classes
_DARKEST = 128  # grey level of black in a pale image

# Okabe & Ito 2008 without black: distinguishable with every kind of colour vision.
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
OTHER: Colour = (96, 96, 96)  # grey shared by classes beyond the first MAX_COLOURS
MAX_COLOURS = 20  # with more colours the closest two look alike

_RESERVED = (OTHER, (224, 224, 224))  # shared grey and ignored pixels: no class may look like them
_LEVELS = range(0, 256, 51)  # six levels per channel: 216 candidates
_LIGHTNESS = (0.32, 0.95)  # OKLab L: darker looks black, lighter looks white
_MIN_CHROMA = 0.07  # OKLab: less looks grey

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB: protanopia and deuteranopia.
_COLOUR_BLINDNESS = np.array(
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
    """Return n colours: those of Okabe and Ito, then each as far as possible from all before it.

    The distance is that in OKLab for the least favourable of three kinds of colour vision: normal,
    protanopia and deuteranopia. Raise `ValueError` for more than `MAX_COLOURS`.
    """
    if n > MAX_COLOURS:
        raise ValueError(f"at most {MAX_COLOURS} colours are distinguishable, not {n}.")
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(grid)  # (216, 3)
    light = (lab[:, 0] > _LIGHTNESS[0]) & (lab[:, 0] < _LIGHTNESS[1])
    candidates = grid[light & (np.hypot(lab[:, 1], lab[:, 2]) > _MIN_CHROMA)]  # (N, 3)
    seen = as_seen(candidates)  # (3, N, 3)
    nearest = distances(seen, as_seen(np.array(_RESERVED + OKABE_ITO))).min(axis=1)  # (N,)
    chosen = list(OKABE_ITO[:n])
    while len(chosen) < n:
        best = int(nearest.argmax())
        red, green, blue = candidates[best].tolist()
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, distances(seen, seen[:, best : best + 1])[:, 0])
    return tuple(chosen)


def as_seen(rgb: npt.NDArray[np.int64]) -> Floats:
    """Return 8-bit sRGB (N, 3) in OKLab as normal, protanope and deuteranope eyes see it."""
    linear = _linear(rgb)
    blind = (linear @ _COLOUR_BLINDNESS.transpose(0, 2, 1)).clip(0, 1)  # (2, N, 3)
    encoded = np.where(blind <= 0.0031308, 12.92 * blind, 1.055 * blind ** (1 / 2.4) - 0.055)
    return np.stack([oklab(rgb), *(oklab(255 * colours) for colours in encoded)])  # (3, N, 3)


def _linear(rgb: npt.NDArray[Any]) -> Floats:
    level = rgb / 255
    linear: Floats = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return linear  # IEC 61966-2-1


def distances(first: Floats, second: Floats) -> Floats:
    """Return the smallest OKLab distance (N, M) over three kinds of vision, (3, N or M, 3)."""
    apart = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)  # (3, N, M)
    smallest: Floats = apart.min(axis=0)
    return smallest


def colours_of(maps: Sequence[Map]) -> list[tuple[int, Colour]]:
    """Return every class in class maps (H, W) with its colour, the largest class first."""
    pixels: npt.NDArray[np.int64] = np.zeros(IGNORED + 1, np.int64)
    for classes in maps:
        pixels += np.bincount(classes.ravel(), minlength=IGNORED + 1)
    pixels[IGNORED] = 0  # not a class
    ranked = np.argsort(-pixels, kind="stable")[: int((pixels > 0).sum())].tolist()
    distinct = palette(min(len(ranked), MAX_COLOURS))
    return list(zip(ranked, distinct + (len(ranked) - len(distinct)) * (OTHER,), strict=True))


@lru_cache(maxsize=4)
def spread_palette(n: int) -> tuple[Colour, ...]:
    """Return n colours, each as far as possible from all before it (OKLab), for normal vision."""
    candidates = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(-1, 3)
    points = oklab(candidates)  # (216, 3)
    chroma = np.hypot(*points[:, 1:].T)  # (216,)
    light = (points[:, 0] > 0.42) & (points[:, 0] < 0.93)  # neither black nor white
    usable = light & (chroma > 0.06)  # not grey
    candidates, points = candidates[usable], points[usable]
    chosen = [int(np.argmax(np.hypot(*points[:, 1:].T)))]  # the most saturated
    nearest = np.full(len(points), np.inf)  # (N,) distance to the chosen colours
    while len(chosen) < min(n, len(points)):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(nearest)))
    colours = [(int(r), int(g), int(b)) for r, g, b in candidates[chosen]]
    return tuple(colours[i % len(colours)] for i in range(n))


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
    lms = np.cbrt(_linear(rgb) @ np.array(to_lms).T)
    lab: Floats = lms @ np.array(to_lab).T
    return lab


def overlay(image: Image.Image, classes: Map, colours: dict[int, Colour]) -> Image.Image:
    """Lay the colours of a class map (H, W) over an image; fade ignored pixels, draw borders."""
    pixels = np.asarray(image, dtype=np.float32)  # (H, W, 3)
    table = np.full((IGNORED + 1, 3), 255, np.float32)  # colour of each class, white if ignored
    for number, colour in colours.items():
        table[number] = colour
    ignored = (classes == IGNORED)[..., None]  # (H, W, 1)
    strength = np.where(ignored, IGNORED_OPACITY, OPACITY)  # (H, W, 1)
    base = np.where(ignored, pixels.mean(axis=2, keepdims=True), pixels)  # ignored: grey
    mixed = base * (1 - strength) + table[classes] * strength  # (H, W, 3)
    mixed[borders(classes)] *= _BORDER
    return Image.fromarray(mixed.astype(np.uint8))


def borders(classes: Map) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) whose right or lower neighbour belongs to another class."""
    edge = np.zeros(classes.shape, np.bool_)
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    edge[:-1] |= classes[:-1] != classes[1:]
    return edge


def pale(image: Image.Image) -> Image.Image:
    """Return an image in light grey, over which class colours stay those of the legend."""
    levels = [_DARKEST + level * (255 - _DARKEST) // 255 for level in range(256)]
    return image.convert("L").point(levels).convert("RGB")
