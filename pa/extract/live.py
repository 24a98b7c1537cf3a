"""Features that are encoded when they are read, instead of being stored.

Spec, rows and fingerprint are those of the store that `pa extract` would write, so everything that
takes a `FeatureSource` works with it; nothing is written, and every read encodes again. Features
are rounded to the storage format: they differ from those of a store only because other batches
change the order of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.schema import Images
from pa.data.store import shards
from pa.data.store.shards import BadImage
from pa.data.store.source import FeatureSource, Ints
from pa.data.views.base import View
from pa.errors import ImageError
from pa.extract.encoders.base import Encoder
from pa.extract.encoding import default_batch, encode_pixels
from pa.extract.pixels import Loaded, Loader, Stages, batches, image_jobs
from pa.extract.stores import ExtractOptions, make_spec


class LiveStore(FeatureSource):
    """Encode rows on the fly; nothing is decoded before it is read."""

    def __init__(
        self, encoder: Encoder, images: Images, view: View, options: ExtractOptions | None = None
    ) -> None:
        options = options or ExtractOptions()
        self._rows = view.rows(images.first(options.limit))
        self.spec = make_spec(encoder, images, view, self._rows, options)
        self.source = {"root": str(images.root)}
        self._encoder = encoder
        self._cut_columns = self._rows.select("image", "path", *view.cut_columns)
        transforms = [encoder.transform]
        self._loader = Loader(images.root, view, transforms, Stages(), options.workers)
        self._batch = options.batch_size or default_batch(encoder, view)

    @property
    def rows(self) -> pl.DataFrame:
        return self._rows

    @property
    def bad(self) -> list[BadImage]:
        return []

    @property
    def is_complete(self) -> bool:
        return True

    @property
    def checksum(self) -> None:
        return None

    def read(
        self, representation: str, rows: Sequence[int] | Ints | None = None
    ) -> npt.NDArray[Any]:
        """Encode rows in the requested order; see `FeatureSource.read`.

        Raise `ImageError` for an image that cannot be decoded: only a stored split, whose bad
        images are known, can skip it.
        """
        wanted = np.arange(self.n_rows) if rows is None else np.asarray(rows, dtype=np.int64)
        self.check_rows(wanted)
        shape = self.shape(representation)  # of a row
        # Each image is decoded once, in whatever order and however often its rows are requested.
        unique, inverse = np.unique(wanted, return_inverse=True)  # (unique,), (n,)
        encoded = self._encode(representation, unique)
        storage = self.spec.precision["storage"]
        # Through the storage format: a store of the same spec has rounded values, too.
        values = np.concatenate([np.empty((0, *shape), np.float32), *encoded])
        return shards.from_disk(shards.to_disk(values, storage), storage)[inverse]

    def blocks(
        self, representation: str, block_rows: int = 1024
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield all rows in order; see `FeatureSource.blocks`."""
        for start in range(0, self.n_rows, block_rows):
            stop = min(start + block_rows, self.n_rows)
            yield start, self.read(representation, np.arange(start, stop))

    def _encode(self, representation: str, rows: Ints) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the features (n, *shape) of ascending rows in batches."""
        chosen = self._cut_columns[rows].with_columns(pl.Series("row", rows))
        loaded = self._loader.ahead(image_jobs(chosen, self._loader.view))
        for batch in batches(map(self._refuse_fault, loaded), self._batch, ()):
            (cuts,) = batch.cuts.values()  # of the only transform
            pixels = np.concatenate([cut.pixels for cut in cuts])  # (n, S, S, 3)
            yield encode_pixels(self._encoder, pixels, [representation])[representation]

    def _refuse_fault(self, loaded: Loaded) -> Loaded:
        if loaded.fault is not None:
            raise ImageError(
                self._loader.root / loaded.job.path,
                f"{loaded.fault}. Encoding on the fly cannot skip it; `pa extract` can.",
            )
        return loaded
