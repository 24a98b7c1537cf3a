"""Images: decode, resize, crop; Pillow on the CPU, as in the official evaluation code.

Shapes: H, W height and width; S side of an encoder input; B boxes.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pa.errors import ImageError

IMAGE_SUFFIXES = frozenset(
    {".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
)

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# An image of 30,000×1 pixels would grow to 2 billion before it is cropped.
MAX_SIDE = 50_000

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Transform:
    """What an encoder wants to see: the evaluation transform of its authors.

    `size` is the side of the square input in pixels, `resize` the length of the short side before
    the centre crop (view `image`), `mean` and `std` apply to RGB in [0, 1].
    """

    size: int = 224
    resize: int = 256
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Transform:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**values)


def decode(data: bytes, path: str | Path) -> Image.Image:
    """Decode the bytes of an image file to upright 8-bit RGB.

    EXIF rotation is applied, 16-bit grey is scaled (not clipped) to 8 bits, CMYK, palette and grey
    become RGB, alpha is dropped, and an animation gives its first frame.

    Raises `ImageError` with the reason, whatever is wrong with the file.
    """
    if not data:
        raise ImageError(path, "the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError as error:
        raise ImageError(path, error.reason) from None
    except UnidentifiedImageError:
        raise ImageError(path, f"not an image that Pillow can read ({_kind(data)})") from None
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise a dozen types on corrupt input
        raise ImageError(path, f"{type(error).__name__}: {error}") from None


def _kind(data: bytes) -> str:
    head = data[:16]
    if head.isascii():
        return f"text, it begins with {head.decode('ascii')!r}"
    return f"it begins with the bytes {head[:8].hex(' ')}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own convert would clip at 255
        values = np.asarray(image, dtype=np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError("", "32-bit integers outside 0..65535: the range of grey is unknown")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ImageError("", "floating-point pixels: the range of grey is unknown")
    return image.convert("RGB")


def resize_short_side(image: Image.Image, length: int, interpolation: str) -> Image.Image:
    """Resize so that the short side is `length`; the long side is truncated as torchvision does."""
    width, height = image.size
    if width <= height:
        size = (length, max(1, int(length * height / width)))
    else:
        size = (max(1, int(length * width / height)), length)
    if max(size) > MAX_SIDE:
        raise ImageError(
            "", f"{width}×{height} pixels are too narrow: resized, one side would be {max(size)}"
        )
    return image if size == image.size else image.resize(size, RESAMPLING[interpolation])


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the central square; offsets round half to even as torchvision's do."""
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def crop_resize(image: Image.Image, box: Box, size: int, interpolation: str) -> Image.Image:
    """Cut a box (x0, y0, x1, y1 in pixels, black outside the image) and resize it to a square.

    The crop comes first, so no pixel outside the box leaks in through the resampling filter.
    Corners round half to even, as Pillow rounds a box of floats.
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    return image.crop((x0, y0, x1, y1)).resize((size, size), RESAMPLING[interpolation])


def stack(images: list[Image.Image]) -> npt.NDArray[np.uint8]:
    """Stack B square images into an array (B, S, S, 3), uint8."""
    return np.stack([np.asarray(image, dtype=np.uint8) for image in images])
