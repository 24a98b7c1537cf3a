"""Label maps: index PNGs read strictly, and turned into class ids.

A label map on disk is a single-channel PNG: 0 = ignored, k = class k - 1. In memory a class map is
(H, W) uint8: class ids from 0, and 255 where the pixel is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.images import open_image
from pa.errors import AnnotationError, ImageError

Map = npt.NDArray[np.uint8]

IDS_SHOWN = 8
BIT_DEPTH = "bit depth"
DEPTH_BYTE = 24  # of a PNG: signature (8), length and name of IHDR (8), width and height (8)


def read_index(path: Path) -> Map:
    """Read the raw values of a grey or palette PNG of 1 to 8 bits: (H, W), uint8.

    A palette image gives its indices, never its colours; grey gives the values as they are stored,
    at every depth. Raises `AnnotationError` for a file that is not there, is torn, is no PNG (other
    formats may be lossy), or has channels or more than 8 bits.
    """
    return index_of(open_png(path), path)


def index_of(image: Image.Image, path: Path) -> Map:
    """The raw values of a label map of `open_png`: (H, W), uint8. Raises `AnnotationError`."""
    if image.mode not in ("L", "P", "1"):
        raise AnnotationError(
            f"{path}: expected a label map with one 8-bit channel; found mode {image.mode} of "
            f"{image.width}x{image.height} pixels."
        )
    # One bit a pixel is 0 and 1, not 0 and 255 as its conversion to grey would say.
    values = np.array(image).astype(np.uint8)
    # Pillow spreads grey of 2 and 4 bits over 0 to 255: by 85 and 17, without a rest.
    depth = int(image.info[BIT_DEPTH])
    return values // np.uint8(255 // (2**depth - 1)) if image.mode == "L" else values


def read_rgb(path: Path) -> Map:
    """Read an 8-bit RGB PNG, as ADE20K's `_seg` and `_parts` files are: (H, W, 3), uint8."""
    image = open_png(path)
    if image.mode != "RGB":
        raise AnnotationError(f"{path}: expected an RGB label map; found mode {image.mode}.")
    return np.array(image, dtype=np.uint8)


def open_png(path: Path) -> Image.Image:
    """Decode a PNG whole, with its own mode; `info` holds its bits per channel (`BIT_DEPTH`).

    Raises `AnnotationError`.
    """
    try:
        data = path.read_bytes()
        with open_image(data, path) as image:
            if image.format != "PNG":
                raise AnnotationError(
                    f"{path}: expected a PNG; found {image.format}, whose pixels may be changed by "
                    f"its compression. Use the label map as it was released."
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


def to_classes(values: Map, n_classes: int, path: Path | str) -> Map:
    """Turn pixel values (0 = ignored, k = class k - 1) into class ids, 255 = ignored.

    255 in the file stays ignored, as in the authors' loader. Raises `AnnotationError` where a
    value is beyond the classes.
    """
    check_range(values, n_classes, path)
    classes: Map = values - np.uint8(1)  # 0 wraps around to 255
    classes[values == IGNORED] = IGNORED
    return classes


def check_range(values: Map, n_classes: int, path: Path | str) -> None:
    """Raise `AnnotationError` where a pixel value is neither 0, nor 1 … n, nor 255."""
    counts = np.bincount(values.ravel(), minlength=256)
    unknown = [v for v in np.flatnonzero(counts).tolist() if n_classes < v != IGNORED]
    if unknown:
        raise AnnotationError(
            f"{path}: unknown class ids {_listed(unknown)}: the label set has {n_classes} classes, "
            f"so pixels are 0 (ignored) or 1 to {n_classes}."
        )


def _listed(values: Sequence[int]) -> str:
    text = ", ".join(str(v) for v in values[:IDS_SHOWN])
    return text + (f", … ({len(values)} in all)" if len(values) > IDS_SHOWN else "")


def check_size(mask: npt.NDArray[Any], size: tuple[int, int], path: Path | str) -> None:
    """Raise `AnnotationError` where a map (H, W) is not of the image's size (width, height)."""
    height, width = mask.shape[:2]
    if (width, height) != size:
        raise AnnotationError(
            f"{path}: the mask is {width}x{height}, its image {size[0]}x{size[1]} pixels. They are "
            "not of one release, or one of them was resized."
        )


def read(path: Path, n_classes: int, size: tuple[int, int] | None = None) -> Map:
    """Read a class map (H, W), uint8, 255 = ignored, and check it against its image's size.

    `size` is (width, height) of the upright image. Raises `AnnotationError`.
    """
    values = read_index(path)
    if size is not None:
        check_size(values, size, path)
    return to_classes(values, n_classes, path)


def count(values: Map, n_classes: int) -> npt.NDArray[np.int64]:
    """Pixels of every class (n_classes,) in a map of pixel values, 0 and 255 left out."""
    counts = np.bincount(values.ravel(), minlength=256)[1 : n_classes + 1]
    return counts.astype(np.int64)


def nearest(n_out: int, n_in: int) -> npt.NDArray[np.int64]:
    """The source index of every pixel of a row that is resized from `n_in` to `n_out` pixels.

    The pixel whose area holds the centre: aligned with the image's bilinear resize. (OpenCV's
    nearest takes the top left corner in place of the centre, which shifts by half a pixel.)
    """
    return (2 * np.arange(n_out, dtype=np.int64) + 1) * n_in // (2 * n_out)


def table(pairs: Collection[tuple[int, int]], size: int) -> Map:
    """A lookup table (size,), uint8: pairs of (number in the annotation, pixel value), else 0."""
    lookup = np.zeros(size, np.uint8)
    for number, value in pairs:
        lookup[number] = value
    return lookup
