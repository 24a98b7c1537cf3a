"""The palette of all figures, and class maps laid over their images.

Shapes: H and W of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map

Colour = tuple[int, int, int]

OPACITY = 0.62  # of a class over its image
IGNORED_OPACITY = 0.55  # of the white over ignored pixels: faded, still recognizable
_BORDER = 0.35  # brightness of the line between two classes
_DARKEST = 128  # grey level of black in a pale image

# The only palette of the figures: encoders, parts and classes take their colours from it, in this
# order. First those of Okabe & Ito (2008) without black, distinguishable with every kind of colour
# vision. Each further one is the sRGB colour of six levels per channel that is farthest from all
# before it, in OKLab, for the least favourable of normal vision, protanopia and deuteranopia. With
# more than twelve, readers confuse classes that are next to each other.
OKABE_ITO: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
)
CLASSES: tuple[Colour, ...] = (
    *OKABE_ITO,
    (0, 51, 102),
    (102, 0, 0),
    (0, 0, 255),
    (153, 204, 153),
    (153, 102, 255),
)
OTHER: Colour = (96, 96, 96)  # grey shared by all further classes


def as_hex(colour: Colour) -> str:
    """Return a colour as matplotlib and HTML write it: "#0072b2"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def colours_of(maps: Sequence[Map]) -> list[tuple[int, Colour]]:
    """Return every class in class maps (H, W) with its colour, the largest class first."""
    pixels: npt.NDArray[np.int64] = np.zeros(IGNORED + 1, np.int64)
    for classes in maps:
        pixels += np.bincount(classes.ravel(), minlength=IGNORED + 1)
    pixels[IGNORED] = 0  # not a class
    ranked = np.argsort(-pixels, kind="stable")[: int((pixels > 0).sum())].tolist()
    return list(zip(ranked, (*CLASSES, *[OTHER] * len(ranked)), strict=False))


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
