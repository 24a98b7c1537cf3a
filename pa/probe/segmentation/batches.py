"""Batches of cached windows: token features, and labels cut from the same pieces of the masks.

Which windows make the batch of an iteration depends on the seed and the iteration alone, so a run
can be taken up anywhere. The next batch is read while the present one is worked on; memory does not
grow with the dataset.

Shapes: B windows, L = g² tokens, D width, K layers, S side of a window.
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
from pa.errors import UsageError, VerificationError
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.loss import LabelTiles

T = TypeVar("T")

LABELS_KEPT = 256 * 1024**2  # bytes of cut label maps that are held for the next epoch
ROWS_SHOWN = 5


def grid_of(store: FeatureSource, representation: str) -> tuple[int, int]:
    """Tokens along a side, and width of the features per token, of a stored token map.

    `patch` (L, D) gives D, `layers` (K, L, D) gives K·D. Raises `UsageError` for a representation
    that is no map of a square of tokens.
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
    """Stored features (B, L, D) or (B, K, L, D) as one row per token: (B·L, D or K·D), float32."""
    moved = torch.from_numpy(raw).to(device)
    if moved.ndim == 4:
        moved = moved.transpose(1, 2).flatten(2)
    return moved.flatten(0, 1).float()


def check_finite(features: Tensor, rows: npt.NDArray[np.int64], store: FeatureSource) -> None:
    """Raise `VerificationError` where the features (B·L, D) of some rows (B,) are not finite."""
    if features.sum().isfinite():  # NaN and infinity pass through; large sums are looked at again
        return
    bad = ~features.view(len(rows), -1).isfinite().all(1).cpu().numpy()
    if bad.any():
        shown = ", ".join(map(str, rows[bad][:ROWS_SHOWN]))
        more = ", …" if bad.sum() > ROWS_SHOWN else ""
        raise VerificationError(
            f"{store.title}: rows {shown}{more} hold NaN or infinity. A store never keeps such "
            f"values, so its bytes were damaged: check it with `pa verify`."
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """The features of B windows as they are stored, and their labels for every label set."""

    rows: npt.NDArray[np.int64]
    raw: npt.NDArray[Any]
    tiles: list[LabelTiles]


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
        self._cut: OrderedDict[tuple[int, int], Map] = OrderedDict()
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def places(self, iteration: int) -> npt.NDArray[np.int64]:
        """Which windows (B,) make the batch of an iteration: epochs, each in an order of its own,
        one behind the other."""
        first = iteration * self._batch
        return np.array([self._place(position) for position in range(first, first + self._batch)])

    def _place(self, position: int) -> int:
        epoch, within = divmod(position, len(self.windows))
        if self._order[0] != epoch:
            draw = np.random.default_rng([self._seed, epoch])
            self._order = epoch, draw.permutation(len(self.windows))
        return int(self._order[1][within])

    def batch(self, iteration: int) -> Batch:
        """Read the batch of an iteration. Raises what reading features and label maps raises."""
        places = self.places(iteration)
        rows = self.windows.rows[places]
        raw = self.windows.store.read(self.representation, rows)
        tiles = []
        for index in range(len(self.maps)):
            labels = np.stack([self._labels(index, place) for place in places.tolist()])
            tiles.append(LabelTiles.of(torch.from_numpy(labels), self.grid))
        return Batch(rows, raw, tiles)

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches of iterations `start` to `stop`, each read while the last is in work."""
        return ahead(self.batch, range(start, stop))

    def _labels(self, index: int, place: int) -> Map:
        """The labels of a window (S, S); the latest ones are kept."""
        key = (index, place)
        if (found := self._cut.get(key)) is not None:
            self._cut.move_to_end(key)
            return found
        image = self.windows.images[self.windows.image_of[place]]
        cut = cut_mask(self.maps[index].read(image), self.windows.windows[place])
        self._cut[key] = cut
        while len(self._cut) * cut.nbytes > LABELS_KEPT:
            self._cut.popitem(last=False)
        return cut


def ahead(make: Callable[[Any], T], items: Sequence[Any]) -> Generator[T, None, None]:
    """`make` of every item, in order; the next one is made in a thread behind the present one."""
    with ThreadPoolExecutor(1, thread_name_prefix="pa-ahead") as pool:
        coming = None
        try:
            for item in items:
                following = pool.submit(make, item)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()
        finally:
            pool.shutdown(cancel_futures=True)
