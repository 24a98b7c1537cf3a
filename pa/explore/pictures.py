"""JPEG pictures of a gallery: thumbnails, regions and whole images, cut on demand and cached.

A picture is addressed by the number of an image or a row alone; the store knows the file.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

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


class ByteCache:
    """Keep the most recently used byte strings up to a total size. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[object, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Return the cached value, or make it; two simultaneous calls may make it twice."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._bytes += len(value) - len(self._values.pop(key, b""))
            self._values[key] = value
            while self._bytes > self._limit and self._values:
                self._bytes -= len(self._values.popitem(last=False)[1])
        return value

    def __len__(self) -> int:
        return len(self._values)


class Pictures:
    """Cut pictures out of the images of stores. Thread-safe."""

    def __init__(self, config: Config, cache_bytes: int = CACHE_BYTES) -> None:
        self._config = config
        self._cache = ByteCache(cache_bytes)
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
        return self._cached(store, "thumbnail", row, lambda: self._canvas(store, row, THUMBNAIL))

    def canvas(self, store: Store, row: int) -> bytes:
        """Return the image on which boxes are drawn, reduced to at most `CANVAS` pixels."""
        return self._cached(store, "canvas", row, lambda: self._canvas(store, row, CANVAS))

    def region(self, store: Store, row: int) -> bytes:
        """Return the region of a row as a square."""
        return self._cached(
            store, "region", row, lambda: _jpeg(self.crops(store).region(row, REGION))
        )

    def _canvas(self, store: Store, row: int, side: int) -> bytes:
        canvas = self.crops(store).canvas(row)
        if max(canvas.size) > side:
            canvas = canvas.copy()
            canvas.thumbnail((side, side), Image.Resampling.LANCZOS)
        return _jpeg(canvas)

    def _cached(self, store: Store, kind: str, row: int, make: Callable[[], bytes]) -> bytes:
        return self._cache.get((store.fingerprint, kind, row), make)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
