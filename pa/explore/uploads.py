"""An image that a visitor sends: limited in bytes and in pixels before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

from PIL import Image, UnidentifiedImageError

from pa.data import images as im
from pa.errors import ImageError

MOST_BYTES = 32 << 20
MOST_PIXELS = 50_000_000
# Formats of photographs; Pillow knows others, some of which start programs or open files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class TooLargeError(ImageError):
    """More bytes than are taken."""


async def receive(parts: AsyncIterator[bytes], announced: str | None) -> bytes:
    """Gather the body of a request. Raises `TooLargeError` as soon as it is more than is taken."""
    reason = f"more than {MOST_BYTES >> 20} MB; make it smaller"
    if announced is not None and announced.isdecimal() and int(announced) > MOST_BYTES:
        raise TooLargeError("the image", reason)
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > MOST_BYTES:
            raise TooLargeError("the image", reason)
    return bytes(data)


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image to upright RGB by the reader that extraction uses.

    Raises `ImageError` for another format than `FORMATS`, too many pixels, or broken data.
    """
    if data:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                width, height = header.size
        except Image.DecompressionBombError:
            raise ImageError(
                name,
                f"it has many more pixels than the {MOST_PIXELS // 1_000_000} million that are "
                f"taken here; make it smaller",
            ) from None
        except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many types on bad input
            why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
            known = ", ".join(FORMATS)
            raise ImageError(name, f"it is none of {known} that can be read{why}") from None
        if width * height > MOST_PIXELS:
            raise ImageError(
                name,
                f"{width}×{height} pixels are more than the {MOST_PIXELS // 1_000_000} million "
                f"that are taken here; make it smaller, or use `pa search --image`",
            )
    return im.decode(data, name)
