"""JPEG pictures of a gallery: thumbnails, regions and whole images, cut on demand and cached.

A picture is addressed by the number of an image or a row alone; the store knows the file.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from cachetools import LRUCache, cachedmethod
from PIL import Image

from pa.config import Config
from pa.data.crops import Crops
from pa.data.store.reader import Store
from pa.errors import PaError

THUMBNAIL = 128  # pixels of the longest side
REGION = 112  # as in the figure
CANVAS = 1024  # pixels of the longest side; the 224×224 of the grid stay as they are
CACHE_BYTES = 96 << 20  # thousands of thumbnails
QUALITY = 90  # JPEG artefacts stay invisible at the size of a region


def _key(_: Any, store: Store, row: int, side: int | None) -> Hashable:
    # A replaced store has another object, but the same pictures.
    return store.fingerprint, row, side


class Pictures:
    """Cut pictures out of the images of stores. Thread-safe."""

    def __init__(self, config: Config, cache_bytes: int = CACHE_BYTES) -> None:
        self._config = config
        self._cache: LRUCache[Hashable, bytes] = LRUCache(cache_bytes, getsizeof=len)
        self._lock = threading.Lock()
        self._crops: dict[Path, Crops] = {}

    def root(self, store: Store) -> Path | None:
        """Return the root of pa.toml if the root recorded at extraction is gone, else None."""
        entry = self._config.settings.datasets.get(store.spec.dataset)
        if entry is None or Path(store.source["root"]).is_dir():
            return None
        return self._config.path(entry.root)

    def crops(self, store: Store) -> Crops:
        known = self._crops.get(store.path)
        if known is None or known.store is not store:
            known = self._crops[store.path] = Crops(store, self.root(store))
        return known

    def size(self, store: Store, row: int) -> tuple[int, int] | None:
        """Return width and height of the canvas of a row; None if its image is unreadable."""
        try:
            return self.crops(store).canvas(row).size
        except (PaError, OSError):
            return None

    def thumbnail(self, store: Store, row: int) -> bytes:
        """Return the whole image of a row as a thumbnail."""
        return self._cut(store, row, THUMBNAIL)

    def canvas(self, store: Store, row: int) -> bytes:
        """Return the image on which boxes are drawn, reduced to at most `CANVAS` pixels."""
        return self._cut(store, row, CANVAS)

    def region(self, store: Store, row: int) -> bytes:
        """Return the region of a row as a square."""
        return self._cut(store, row, None)

    # The lock guards the cache alone: pictures are cut in parallel, a popular one perhaps twice.
    @cachedmethod(lambda self: self._cache, key=_key, lock=lambda self: self._lock)
    def _cut(self, store: Store, row: int, side: int | None) -> bytes:
        """Return a region, or the canvas with at most `side` pixels, as JPEG."""
        if side is None:
            picture = self.crops(store).region(row, REGION)
        else:
            picture = self.crops(store).canvas(row)
            if max(picture.size) > side:
                picture = picture.copy()
                picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        picture.convert("RGB").save(out, "JPEG", quality=QUALITY)
        return out.getvalue()
