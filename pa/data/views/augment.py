"""Training crops of a segmentation dataset: their positions and colour distortions.

The random numbers of mmsegmentation 0.11 (RandomCrop, RandomFlip, PhotoMetricDistortion) are drawn
once and stored in the table of rows: the same crop can be cut again, from the image and from its
mask, without a random generator.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map, nearest

HUE_CIRCLE = 180  # OpenCV's 8-bit hue, the unit of the limit in mmsegmentation; Pillow has 256
Size = tuple[int, int]


class Colours(NamedTuple):
    """A photometric distortion; the defaults change nothing.

    brightness is added to every channel, contrast multiplies them, saturation multiplies S and hue
    is added to H (of 180) in HSV. Contrast comes before the latter two, or last.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: int = 0
    contrast_last: bool = False


def generator(seed: int, path: str, number: int) -> np.random.Generator:
    """Return the generator of one crop, which depends only on seed, image and crop number."""
    digest = hashlib.sha256(f"{seed}\n{path}\n{number}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def draw_corner(
    draw: np.random.Generator, canvas: Size, crop: int, mask: Map | None, share: float, tries: int
) -> Size:
    """Draw the top left corner (x, y) of a crop on a canvas (width, height).

    With a mask of the image (any size; 0 and 255 = ignored) the corner is drawn again, up to
    `tries` times, while one class has `share` or more of the crop's labelled pixels, or all of them
    (RandomCrop's cat_max_ratio). The last draw is used in any case.
    """
    is_limited = mask is not None and share < 1
    for _ in range(tries + 1 if is_limited else 1):
        y = int(draw.integers(0, max(canvas[1] - crop, 0) + 1))
        x = int(draw.integers(0, max(canvas[0] - crop, 0) + 1))
        if mask is not None and is_limited:
            ys = nearest(canvas[1], mask.shape[0])[y : y + crop]
            xs = nearest(canvas[0], mask.shape[1])[x : x + crop]
            if is_mixed(mask[np.ix_(ys, xs)], share):
                break
    return x, y


def is_mixed(values: Map, share: float) -> bool:
    """Return whether a crop has several classes, none with `share` or more of its pixels."""
    counts = np.bincount(values.ravel(), minlength=IGNORED + 1)  # (256,)
    # Without 0 and 255, which are ignored.
    labelled = counts[1:IGNORED]
    total = int(labelled.sum())
    return int(np.count_nonzero(labelled)) > 1 and int(labelled.max()) < share * total


def draw_colours(
    draw: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: int
) -> Colours:
    """Draw a distortion: each of the four with probability 1/2 (PhotoMetricDistortion)."""
    on = draw.integers(0, 2, 4)  # (4,) which distortions apply
    return Colours(
        brightness=float(draw.uniform(-brightness, brightness)) * int(on[0]),
        contrast=float(draw.uniform(1 - contrast, 1 + contrast)) if on[1] else 1.0,
        saturation=float(draw.uniform(1 - saturation, 1 + saturation)) if on[2] else 1.0,
        hue=int(draw.integers(-hue, hue)) * int(on[3]) if hue else 0,
        contrast_last=bool(draw.integers(0, 2)),
    )


def distort(image: Image.Image, colours: Colours) -> Image.Image:
    """Apply a distortion to an RGB image; after each step values are truncated to 0..255."""
    # The order of mmsegmentation's PhotoMetricDistortion.
    image = _scaled(image, 1.0, colours.brightness)
    if not colours.contrast_last:
        image = _scaled(image, colours.contrast)
    if colours.saturation != 1 or colours.hue:
        hue, saturation, value = image.convert("HSV").split()
        shift = round(colours.hue * 256 / HUE_CIRCLE)
        hue = hue.point([(level + shift) % 256 for level in range(256)])  # the hue is a circle
        saturation = _scaled(saturation, colours.saturation)
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if colours.contrast_last:
        image = _scaled(image, colours.contrast)
    return image


def _scaled(image: Image.Image, factor: float, shift: float = 0.0) -> Image.Image:
    if factor == 1 and shift == 0:
        return image
    table = [min(max(int(level * factor + shift), 0), 255) for level in range(256)]  # clipped
    return image.point(table * len(image.getbands()))
