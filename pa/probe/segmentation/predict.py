"""From the cached features of sliding windows to a class map at the image's own size.

The released code enlarges the logits of every window to its pixels, averages them where windows
overlap, resizes the sum to the size of the original image and takes the largest. All of that is
linear, and the same along both sides, so it is two matrices: M_y (H, n_y·g) and M_x (W, n_x·g)
with logits = M_y Z M_xᵀ, where Z holds the coarse logits of all windows. They are applied a few
rows of the image at a time: the full-size logits of hundreds of classes are never in memory.
Source: SEG/mmseg/models/segmentors/encoder_decoder.py, `slide_inference`, `inference`.

Shapes: n_y × n_x windows, g tokens along a side of one, S pixels, H and W of the original image,
C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.data.views.windows import Window, cut_mask
from pa.errors import UsageError
from pa.probe.segmentation.loss import cut_tiles, side_weights

# Logits in memory at once: of the caches' order on a CPU, of a gigabyte on a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**21, 2**28


@lru_cache(maxsize=64)
def side_matrix(
    starts: tuple[int, ...], window: int, canvas: int, original: int, grid: int, first: int
) -> Tensor:
    """M of one side: (original, n·g), float32.

    `starts` are the first pixels of the n windows of `window` pixels on a canvas of `canvas`; what
    reaches beyond it was padded, and is cut off.
    """
    enlarging = side_weights(grid, window, first).double()
    placed = torch.zeros(canvas, len(starts), grid, dtype=torch.float64)
    covered = torch.zeros(canvas, dtype=torch.float64)
    for index, start in enumerate(starts):
        stop = min(start + window, canvas)
        placed[start:stop, index] = enlarging[: stop - start]
        covered[start:stop] += 1
    averaged = placed.flatten(1) / covered[:, None]
    return (side_weights(canvas, original).double() @ averaged).float()


class SlidingPrediction:
    """The geometry of one image: its windows, and its original size (width, height).

    Raises `UsageError` for windows that are no full rows and columns covering the image.
    """

    def __init__(
        self, windows: Sequence[Window], size: tuple[int, int], grid: int, first: int
    ) -> None:
        xs = tuple(sorted({round(window.x0) for window in windows}))
        ys = tuple(sorted({round(window.y0) for window in windows}))
        side, (width, height) = windows[0].size, windows[0].canvas
        laid = [(round(window.y0), round(window.x0)) for window in windows]
        gaps = _has_gap(xs, side, width) or _has_gap(ys, side, height)
        if laid != [(y, x) for y in ys for x in xs] or gaps:
            raise UsageError(
                f"{len(windows)} windows do not cover their image of {width}x{height} pixels in "
                f"rows and columns. Score a store of sliding windows (--views 0)."
            )
        self._shape = (len(ys), len(xs), grid, grid)
        self._rows = side_matrix(ys, side, height, size[1], grid, first)
        self._columns = side_matrix(xs, side, width, size[0], grid, first)

    def logits(self, coarse: Tensor, rows: slice = slice(None)) -> Tensor:
        """Logits of some rows of the image, (r, W, C), of the windows' coarse ones (n, g, g, C)."""
        return self._rows_of(self._across(coarse), rows)

    def classes(self, coarse: Tensor) -> Map:
        """The class map (H, W), uint8, of coarse logits (n, g, g, C): the largest one's class."""
        across = self._across(coarse)
        height, width = len(self._rows), len(self._columns)
        budget = CPU_ELEMENTS if coarse.device.type == "cpu" else GPU_ELEMENTS
        step = max(1, budget // (width * coarse.shape[-1]))
        out = np.empty((height, width), np.uint8)
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            out[rows] = _largest(self._rows_of(across, rows))
        return out

    def _across(self, coarse: Tensor) -> Tensor:
        """Enlarged along x: (n_y·g, W, C)."""
        n_y, n_x, g, _ = self._shape
        laid = coarse.view(n_y, n_x, g, g, -1).transpose(1, 2).reshape(n_y * g, n_x * g, -1)
        return self._columns.to(coarse.device) @ laid

    def _rows_of(self, across: Tensor, rows: slice) -> Tensor:
        """Some rows of the image, from the few rows of tokens that they are made of."""
        weights = self._rows[rows]
        used = weights.ne(0).any(0).nonzero()[:, 0]
        mixed = weights[:, used].to(across.device) @ across[used.to(across.device)].flatten(1)
        return mixed.view(len(weights), *across.shape[1:])


def _largest(logits: Tensor) -> Map:
    """The place of the largest of the last axis; on the CPU by numpy, which is faster there."""
    largest: Map
    if logits.device.type == "cpu":
        largest = logits.numpy().argmax(-1).astype(np.uint8)
    else:
        largest = logits.argmax(-1).to(torch.uint8).cpu().numpy()
    return largest


def _has_gap(starts: tuple[int, ...], side: int, length: int) -> bool:
    ends = [0, *(start + side for start in starts)]
    return any(a < b for a, b in zip(ends, (*starts, length), strict=True))


def label_shares(
    classes: Map, windows: Sequence[Window], grid: int, n_classes: int
) -> npt.NDArray[np.float32]:
    """The share of each class in every token's pixels, (n, g, g, C): labels on the grid of tokens.

    Taken for logits they show what resolution alone costs: a head that knew the labels of each
    token would, enlarged in the same way, score about this.
    """
    cut = torch.from_numpy(np.stack([cut_mask(classes, window) for window in windows]))
    tiles = cut_tiles(cut, grid).long()  # (n·g², p²)
    shares = torch.zeros(len(tiles), IGNORED + 1)
    shares.scatter_add_(1, tiles, torch.full(tiles.shape, 1 / tiles.shape[1]))
    laid: npt.NDArray[np.float32] = shares[:, :n_classes].view(-1, grid, grid, n_classes).numpy()
    return laid
