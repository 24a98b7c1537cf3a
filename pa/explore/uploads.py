"""Uploaded images: received and decoded within limits, then encoded as queries."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import LRUCache
from PIL import Image

from pa.data import images as im
from pa.errors import ImageError
from pa.explore.stores import Column
from pa.index.search import Query
from pa.workspace import Workspace

if TYPE_CHECKING:
    from pa.extract.encoders import Encoder
    from pa.extract.image_query import ImageQuery

MAX_BYTES = 32 << 20  # a photograph of any camera
MAX_PIXELS = 50_000_000  # 150 MB decoded
MAX_ENCODERS = 4  # in memory at the same time
# Formats of photographs: fewer than those of a dataset, since anyone may send these bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class TooLargeError(ImageError):
    """The upload has too many bytes."""


async def receive(parts: AsyncIterator[bytes], content_length: str | None) -> bytes:
    """Return the body of a request. Raise `TooLargeError` once it exceeds the limit."""
    reason = f"more than {MAX_BYTES >> 20} MB; make it smaller"
    if content_length and content_length.isdecimal() and int(content_length) > MAX_BYTES:
        raise TooLargeError("the image", reason)
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > MAX_BYTES:
            raise TooLargeError("the image", reason)
    return bytes(data)


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image to upright RGB with the decoder of the extraction.

    Raise `ImageError` for a format outside `FORMATS`, too many pixels, or broken data.
    """
    return im.decode(data, name, formats=FORMATS, max_pixels=MAX_PIXELS)


class Encoders:
    """Encode uploads with the encoders of the stores; the last ones used stay in memory."""

    def __init__(
        self, workspace: Workspace, device: str | None, checkpoints: Sequence[Path] = ()
    ) -> None:
        self._workspace = workspace
        self._device = device
        self._checkpoints = checkpoints
        self._by_fingerprint: LRUCache[str, Encoder] = LRUCache(MAX_ENCODERS)
        self._lock = threading.Lock()

    def query(self, column: Column, upload: ImageQuery) -> Query:
        """Encode the box of an upload, as `pa search --image` does.

        Raise as `Workspace.encoder_of`: for a missing checkpoint, or a network other than the
        store's.
        """
        store = column.store
        with self._lock:
            encoder = self._by_fingerprint.get(store.fingerprint)
            if encoder is None:
                encoder = self._workspace.encoder_of(
                    store, "pa explore", checkpoints=self._checkpoints, device=self._device
                )
                self._by_fingerprint[store.fingerprint] = encoder
            vector = upload.encode(encoder, column.representation)  # (D,)
        return Query(vector=vector, path=upload.name, box=upload.box, canvas=upload.picture)
