"""Decode, resize and crop images with Pillow on the CPU, as the official evaluation code does.

Shapes: H, W height and width; S side of an encoder input; B boxes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageOps, UnidentifiedImageError

from pa.data.schema import Box
from pa.errors import ImageError

# Pillow has formats that start programs (EPS starts Ghostscript) or open other files, and selects
# them by the bytes of a file, not by its name: only these formats are allowed.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "HEIF")
IMAGE_SUFFIXES = frozenset(
    {".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
    | {".avif", ".heic", ".heif"}
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # bytes 8 to 12

# Last words of reasons that depend on this machine and its settings, not on the file.
RAISE_LIMIT = "set max_pixels in pa.toml, or PA_MAX_PIXELS, if the file can be trusted"
INSTALL_HEIF = "`pip install pillow-heif` adds one"

# `open_image` applies the limit: Pillow's own only warns on stderr, and ignores our setting.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about faults (EXIF tags, invalid animations) that leave the first frame intact; other
# faults are exceptions. The filter is global, because `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

MAX_SIDE = 50_000  # a strip of 30,000×1 pixels would otherwise grow to 2 billion before the crop
MAX_PIXELS = 100_000_000  # 300 MB as 8-bit RGB; the largest image of ImageNet has 30 million
_max_pixels = MAX_PIXELS

HEADER_THREADS = 8  # hide the latency of a network disk
ORIENTATION = 0x0112  # EXIF tag


def set_max_pixels(limit: int) -> None:
    """Set the number of pixels above which this process decodes no image."""
    global _max_pixels  # one limit for everything that opens images
    _max_pixels = limit


@dataclass(frozen=True)
class Transform:
    """The evaluation transform of an encoder, as published by its authors.

    `mean` and `std` apply to RGB in [0, 1].
    """

    size: int = 224  # side of the input in pixels
    resize: int = 256  # short side before the centre crop
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Transform:
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        return cls(**values)


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of `FORMATS` with an installed decoder; HEIF needs pillow-heif."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(
    source: bytes | Path,
    name: str | Path,
    *,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Open an image file, or the bytes of one, and read its header; pixels are decoded later.

    The only place that calls Pillow's `open`. `name` is that of the file in messages, `formats` are
    those to accept (by default `readable_formats`), `max_pixels` limits width times height (by
    default the setting `max_pixels`).

    Raises
    ------
    ImageError
        With the reason: empty, of another format, too large, or a damaged header.
    """
    accepted = readable_formats() if formats is None else tuple(formats)
    limit = _max_pixels if max_pixels is None else max_pixels
    try:
        if source == b"":
            raise ImageError(name, "the file is empty (0 bytes)")
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        image = Image.open(file, formats=accepted)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(name, _why_unidentified(source, accepted)) from None
    except OSError as error:
        raise ImageError(name, error.strerror or str(error)) from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise a dozen types on corrupt input
        raise ImageError(name, f"{type(error).__name__}: {error}") from None
    width, height = image.size
    if width * height > limit:
        image.close()
        size = f"{width}×{height} pixels are more than the limit of {limit:,}"
        raise ImageError(name, f"{size}; {RAISE_LIMIT}")
    return image


def can_be_opened_now(path: Path, reason: str) -> bool:
    """Return whether an image that exceeded a limit or lacked a decoder can be opened now."""
    if not reason.endswith((RAISE_LIMIT, INSTALL_HEIF)):
        return False
    try:
        open_image(path, path).close()
    except ImageError:
        return False
    return True


def decode(
    data: bytes,
    path: str | Path,
    *,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Decode the bytes of an image file to upright 8-bit RGB.

    EXIF rotation is applied, 16-bit grey is scaled (not clipped) to 8 bits, CMYK, palette and grey
    become RGB, alpha is dropped, and the first frame of an animation is used. `formats` and
    `max_pixels` are those of `open_image`. Raise `ImageError` for every fault of the file.
    """
    try:
        with open_image(data, path, formats=formats, max_pixels=max_pixels) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
            values = np.asarray(image, dtype=np.int64)  # (H, W)
            if values.size and (values.min() < 0 or values.max() > 65535):
                reason = "32-bit integers outside 0..65535: the range of grey is unknown"
                raise ImageError("", reason)
            image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        if image.mode == "F":
            raise ImageError("", "floating-point pixels: the range of grey is unknown")
        return image.convert("RGB")
    except ImageError as error:
        raise ImageError(path, error.reason) from None
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise a dozen types on corrupt input
        raise ImageError(path, f"{type(error).__name__}: {error}") from None


def _why_unidentified(source: bytes | Path, accepted: Sequence[str]) -> str:
    if isinstance(source, bytes):
        head = source[:16]  # enough for every signature
    else:
        with source.open("rb") as file:
            head = file.read(16)
    if not head:
        return "the file is empty (0 bytes)"
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and "HEIF" not in accepted:  # ISO 14496
        return f"HEIC, for which no decoder is installed; {INSTALL_HEIF}"
    if head.isascii():
        kind = f"text, it begins with {head.decode('ascii')!r}"
    else:
        kind = f"it begins with the bytes {head[:8].hex(' ')}"
    return f"not an image of a known format, {', '.join(accepted)} ({kind})"


@dataclass(frozen=True)
class Header:
    size: tuple[int, int] | None  # width and height of the upright image in pixels
    turned: bool = False  # whether EXIF rotates or mirrors the image
    fault: str | None = None  # why the size is None


def read_header(path: Path) -> Header:
    """Read the upright size of an image file without decoding it; a fault is not raised."""
    try:
        with open_image(path, path) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            width, height = image.size
    except ImageError as error:
        return Header(None, fault=error.reason)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many types on corrupt input
        return Header(None, fault=f"{type(error).__name__}: {error}")
    # Values 5 to 8 swap the sides.
    upright = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    return Header(upright, turned=orientation != 1)


def read_headers(root: Path, paths: Sequence[str]) -> Iterator[Header]:
    """Yield the headers of many files, in order."""
    with ThreadPoolExecutor(HEADER_THREADS, thread_name_prefix="pa-header") as pool:
        yield from pool.map(lambda path: read_header(root / path), paths)


def size_columns(root: Path, paths: Sequence[str]) -> pl.DataFrame:
    """Return the columns width and height of image files, null for one that cannot be read."""
    sizes = [header.size or (None, None) for header in read_headers(root, paths)]
    return pl.DataFrame(sizes, {"width": pl.Int64, "height": pl.Int64}, orient="row")


def resize_short_side(image: Image.Image, length: int, interpolation: str) -> Image.Image:
    """Resize the short side to `length`; the long side is truncated, as torchvision does."""
    width, height = image.size
    long = max(1, int(length * max(image.size) / min(image.size)))
    size = (length, long) if width <= height else (long, length)
    if long > MAX_SIDE:
        reason = f"{width}×{height} pixels are too narrow: resized, one side would be {long}"
        raise ImageError("", reason)
    return image if size == image.size else image.resize(size, RESAMPLING[interpolation])


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the central square; offsets round half to even, as in torchvision."""
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def crop_resize(image: Image.Image, box: Box, size: int, interpolation: str) -> Image.Image:
    """Crop a box (x0, y0, x1, y1 in pixels, black outside the image) and resize it to a square.

    Corners round half to even, as Pillow rounds a box of floats.
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    # The crop comes first, so the resampling filter uses no pixel outside the box.
    return image.crop((x0, y0, x1, y1)).resize((size, size), RESAMPLING[interpolation])


def stack(images: list[Image.Image]) -> npt.NDArray[np.uint8]:
    """Stack B square images into an array (B, S, S, 3), uint8."""
    return np.stack([np.asarray(image, dtype=np.uint8) for image in images])
