"""Batches of stored windows: token features, and labels cut from the same regions of the masks.

The windows of an iteration depend on the seed and the iteration alone, so a run can resume
anywhere. The next batch is read while the current one is processed; memory does not grow with the
dataset.

Shapes: B windows, g tokens per side, L = g² tokens, D width, K layers, S side of a window.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.datasets.segmentation.masks import Map
from pa.data.store.source import FeatureSource
from pa.data.views.windows import cut_mask
from pa.errors import UsageError
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.loss import LabelTiles
from pa.probe.selection import non_finite

T = TypeVar("T")
R = TypeVar("R")

LABEL_CACHE = 256 * 1024**2  # bytes of cut label maps kept for the next epoch


def grid_of(store: FeatureSource, representation: str) -> tuple[int, int]:
    """Return the tokens per side, and the width of the features per token, of a token map.

    `patch` (L, D) gives D, `layers` (K, L, D) gives K·D. Raise `UsageError` for a representation
    that is not a map of a square of tokens.
    """
    shape = store.shape(representation)
    tokens = shape[-2] if len(shape) in (2, 3) else 0
    grid = math.isqrt(tokens)
    if not tokens or grid * grid != tokens:
        raise UsageError(
            f"{store.title}: {representation} has the shape {shape} per row. Expected a square of "
            f"tokens, (L, D) or (K, L, D): patch or layers of view windows."
        )
    return grid, shape[-1] * (shape[0] if len(shape) == 3 else 1)


def token_features(raw: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return stored features (B, L, D) or (B, K, L, D) as (B·L, D or K·D), float32."""
    features = torch.from_numpy(raw).to(device)
    if features.ndim == 4:
        features = features.transpose(1, 2).flatten(2)  # (B, L, K·D)
    return features.flatten(0, 1).float()  # (B·L, D or K·D)


def check_finite(features: Tensor, rows: npt.NDArray[np.int64], store: FeatureSource) -> None:
    """Raise `VerificationError` unless the features (B·L, D) of rows (B,) are finite."""
    if features.sum().isfinite():  # fast: NaN and infinity survive a sum
        return
    bad = ~features.view(len(rows), -1).isfinite().all(1).cpu().numpy()  # (B,)
    if bad.any():
        raise non_finite(store.title, rows[bad])


@dataclass(frozen=True, eq=False)
class Batch:
    """Stored features `raw` of B windows, and their labels for every label set."""

    rows: npt.NDArray[np.int64]  # (B,)
    raw: npt.NDArray[Any]  # (B, L, D) or (B, K, L, D)
    tiles: list[LabelTiles]  # one per label set


class TrainingWindows:
    """The windows that heads are trained on, with the labels of one or more label sets."""

    def __init__(
        self,
        windows: WindowRows,
        maps: Sequence[LabelMaps],
        representation: str,
        batch: int,
        seed: int,
    ) -> None:
        self.windows = windows
        self.maps = list(maps)
        self.representation = representation
        self.grid, self.width = grid_of(windows.store, representation)
        self._batch = batch
        self._seed = seed
        self._labels: OrderedDict[tuple[int, int], Map] = OrderedDict()
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def indices(self, iteration: int) -> npt.NDArray[np.int64]:
        """Return the windows (B,) of an iteration: consecutive epochs, each in its own order."""
        indices = []
        for position in range(iteration * self._batch, (iteration + 1) * self._batch):
            epoch, within = divmod(position, len(self.windows))
            if self._order[0] != epoch:
                draw = np.random.default_rng([self._seed, epoch])
                self._order = epoch, draw.permutation(len(self.windows))
            indices.append(int(self._order[1][within]))
        return np.array(indices)

    def batch(self, iteration: int) -> Batch:
        """Read the batch of an iteration. Raise what reading features and label maps raises."""
        indices = self.indices(iteration)
        rows = self.windows.rows[indices]
        raw = self.windows.store.read(self.representation, rows)  # (B, L, D) or (B, K, L, D)
        tiles = []
        for number in range(len(self.maps)):
            labels = [self._cut_labels(number, index) for index in indices.tolist()]
            tiles.append(LabelTiles.of(torch.from_numpy(np.stack(labels)), self.grid))
        return Batch(rows, raw, tiles)

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Yield the batches of iterations `start` to `stop`, reading one ahead."""
        return read_ahead(self.batch, range(start, stop))

    def _cut_labels(self, number: int, index: int) -> Map:
        """Return the labels (S, S) of a window for a label set; recent ones are cached."""
        key = (number, index)
        if (cached := self._labels.get(key)) is not None:
            self._labels.move_to_end(key)
            return cached
        image = self.windows.images[self.windows.image_of[index]]
        # The same crop, flip and padding as the stored features.
        cut = cut_mask(self.maps[number].read(image), self.windows.windows[index])
        self._labels[key] = cut
        while len(self._labels) * cut.nbytes > LABEL_CACHE:
            self._labels.popitem(last=False)
        return cut


def read_ahead(make: Callable[[T], R], items: Sequence[T]) -> Generator[R, None, None]:
    """Yield `make` of every item in order; the next one is made in a background thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="pa-ahead") as pool:
        current = None
        try:
            for item in items:
                following = pool.submit(make, item)
                if current is not None:
                    yield current.result()
                current = following
            if current is not None:  # the last one
                yield current.result()
        finally:
            pool.shutdown(cancel_futures=True)
