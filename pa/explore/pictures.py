"""The pictures of a gallery as JPEG: thumbnails, regions, whole images; cut on demand, and kept.

A picture is named by an image's number or a row's id alone; which file that is, the store says.
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

THUMBNAIL = 128  # longest side in pixels
REGION = 112  # as in the figure
CANVAS = 1024  # longest side; the 224×224 of the grid stay as they are
CACHE_BYTES = 96 << 20
QUALITY = 90


class ByteCache:
    """The most recently used byte strings, up to a number of bytes. For any number of threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """What is kept, or what `make` gives; made twice where two threads ask at once."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._limit and self._kept:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def __len__(self) -> int:
        return len(self._kept)


class Pictures:
    """Cuts pictures out of the images of stores. All methods are for any number of threads."""

    def __init__(self, config: Config, cache_bytes: int = CACHE_BYTES) -> None:
        self._config = config
        self._cache = ByteCache(cache_bytes)
        self._crops: dict[Path, Crops] = {}

    def root(self, store: Store) -> Path | None:
        """Where a store's images lie: where they lay at extraction, else where pa.toml says.

        None stands for the first.
        """
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
        """Width and height of the canvas of a row; None where its image is not to be had."""
        try:
            return self.crops(store).canvas(row).size
        except (PaError, OSError):
            return None

    def thumbnail(self, store: Store, row: int) -> bytes:
        """The whole image of a row, small."""
        return self._kept(store, "thumbnail", row, lambda: self._canvas(store, row, THUMBNAIL))

    def canvas(self, store: Store, row: int) -> bytes:
        """The image on which the boxes of a row's image lie; only larger ones are made smaller."""
        return self._kept(store, "canvas", row, lambda: self._canvas(store, row, CANVAS))

    def region(self, store: Store, row: int) -> bytes:
        """A row's region as a square."""
        return self._kept(
            store, "region", row, lambda: _jpeg(self.crops(store).region(row, REGION))
        )

    def _canvas(self, store: Store, row: int, side: int) -> bytes:
        canvas = self.crops(store).canvas(row)
        if max(canvas.size) > side:
            canvas = canvas.copy()
            canvas.thumbnail((side, side), Image.Resampling.LANCZOS)
        return _jpeg(canvas)

    def _kept(self, store: Store, kind: str, row: int, make: Callable[[], bytes]) -> bytes:
        return self._cache.get((store.fingerprint, kind, row), make)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
