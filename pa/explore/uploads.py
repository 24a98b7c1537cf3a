"""An image that a visitor sends: limited in bytes and in pixels before anything is decoded."""

from __future__ import annotations

from collections.abc import AsyncIterator

from PIL import Image

from pa.data import images as im
from pa.errors import ImageError

MOST_BYTES = 32 << 20
MOST_PIXELS = 50_000_000
# Formats of photographs, for bytes that anyone may send: fewer than those of a dataset's files.
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
    return im.decode(data, name, formats=FORMATS, max_pixels=MOST_PIXELS)
