"""Label maps: index PNGs read strictly and converted to class ids.

A label map on disk is a single-channel PNG: 0 = ignored, k = class k - 1. In memory a class map is
(H, W) uint8: class ids from 0, and 255 for ignored pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.images import open_image
from pa.errors import AnnotationError, ImageError

Map = npt.NDArray[np.uint8]

MAX_IDS = 8  # class ids listed in a message
BIT_DEPTH = "bit depth"
DEPTH_BYTE = 24  # of a PNG: signature (8), length and name of IHDR (8), width and height (8)


def read_index(path: Path) -> Map:
    """Read the stored values of a grey or palette PNG of 1 to 8 bits: (H, W), uint8.

    A palette image gives its indices, not its colours. Raise `AnnotationError` for a file that is
    missing, damaged, not a PNG (other formats may be lossy), or has channels or more than 8 bits.
    """
    return index_of(open_png(path), path)


def index_of(image: Image.Image, path: Path) -> Map:
    """Return the stored values (H, W), uint8, of an image opened by `open_png`."""
    if image.mode not in ("L", "P", "1"):
        raise AnnotationError(
            f"{path}: expected a label map with one 8-bit channel; found mode {image.mode} of "
            f"{image.width}x{image.height} pixels."
        )
    # np.array keeps 1-bit pixels as 0 and 1; Image.convert("L") would make them 0 and 255.
    values = np.array(image).astype(np.uint8)
    # Pillow scales grey of 2 and 4 bits to 0..255, by 85 and 17.
    depth = int(image.info[BIT_DEPTH])
    return values // np.uint8(255 // (2**depth - 1)) if image.mode == "L" else values


def read_rgb(path: Path) -> Map:
    """Read an 8-bit RGB PNG, such as ADE20K's `_seg` and `_parts` files: (H, W, 3), uint8."""
    image = open_png(path)
    if image.mode != "RGB":
        raise AnnotationError(f"{path}: expected an RGB label map; found mode {image.mode}.")
    return np.array(image, dtype=np.uint8)


def open_png(path: Path) -> Image.Image:
    """Decode a PNG in its own mode; `info[BIT_DEPTH]` holds its bits per channel.

    Raise `AnnotationError` for any other or damaged file.
    """
    try:
        data = path.read_bytes()
        with open_image(data, path) as image:
            if image.format != "PNG":
                raise AnnotationError(
                    f"{path}: expected a PNG; found {image.format}, whose compression may change "
                    f"pixels. Use the label map as it was released."
                )
            image.load()
            copy = image.copy()
            copy.info[BIT_DEPTH] = data[DEPTH_BYTE]
            return copy
    except AnnotationError:
        raise
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file.") from None
    except ImageError as error:
        raise AnnotationError(f"{error}.") from None
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise a dozen types on corrupt input
        raise AnnotationError(f"{path}: {type(error).__name__}: {error}.") from None


def check_range(values: Map, n_classes: int, path: Path | str) -> None:
    """Raise `AnnotationError` unless all pixel values are 0, 1 … n or 255."""
    counts = np.bincount(values.ravel(), minlength=256)
    unknown = [v for v in np.flatnonzero(counts).tolist() if n_classes < v != IGNORED]
    if unknown:
        shown = ", ".join(map(str, unknown[:MAX_IDS]))
        more = f", … ({len(unknown)} in total)" if len(unknown) > MAX_IDS else ""
        raise AnnotationError(
            f"{path}: unknown class ids {shown}{more}: the label set has {n_classes} classes, so "
            f"pixels are 0 (ignored) or 1 to {n_classes}."
        )


def check_size(mask: npt.NDArray[Any], size: tuple[int, int], path: Path | str) -> None:
    """Raise `AnnotationError` unless a map (H, W) has the image's size (width, height)."""
    height, width = mask.shape[:2]
    if (width, height) != size:
        raise AnnotationError(
            f"{path}: the mask is {width}x{height}, its image {size[0]}x{size[1]} pixels. They are "
            "from different releases, or one of them was resized."
        )


def read_values(path: Path, n_classes: int, size: tuple[int, int] | None = None) -> Map:
    """Read the pixel values (H, W), uint8, of the map of an image of `size` (width, height).

    Raise `AnnotationError` if the file is damaged, has another size or holds unknown classes.
    """
    values = read_index(path)
    if size is not None:
        check_size(values, size, path)
    check_range(values, n_classes, path)
    return values


def read(path: Path, n_classes: int, size: tuple[int, int] | None = None) -> Map:
    """Read a class map (H, W), uint8, 255 = ignored; see `read_values`."""
    values = read_values(path, n_classes, size)
    classes: Map = values - np.uint8(1)  # 0 wraps around to 255
    classes[values == IGNORED] = IGNORED  # as in the authors' loader
    return classes


def count(values: Map, n_classes: int) -> npt.NDArray[np.int64]:
    """Return the pixels of every class (n_classes,) in a map of pixel values."""
    # Without 0 and 255, which are ignored.
    counts = np.bincount(values.ravel(), minlength=256)[1 : n_classes + 1]
    return counts.astype(np.int64)


def nearest(n_out: int, n_in: int) -> npt.NDArray[np.int64]:
    """Return the source index of every pixel of a row resized from `n_in` to `n_out` pixels.

    It is the pixel whose area contains the centre, aligned with the image's bilinear resize.
    """
    # OpenCV's nearest takes the top left corner instead, which shifts by half a pixel.
    return (2 * np.arange(n_out, dtype=np.int64) + 1) * n_in // (2 * n_out)


def table(pairs: Iterable[tuple[int, int]], size: int) -> Map:
    """Return a lookup table (size,), uint8, of (number in the annotation, pixel value), else 0."""
    lookup = np.zeros(size, np.uint8)
    for number, value in pairs:
        lookup[number] = value
    return lookup
