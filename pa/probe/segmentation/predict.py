"""From the stored features of sliding windows to a class map at the original size of an image.

The released code upsamples the logits of every window to its pixels, averages them over overlapping
windows, resizes the sum to the size of the original image and takes the largest. All of that is
linear and separable, so it is two matrices: M_y (H, n_y·g) and M_x (W, n_x·g) with
logits = M_y Z M_xᵀ, where Z holds the coarse logits of all windows. They are applied to a few rows
of the image at a time: the full-size logits of hundreds of classes are never in memory.
Source: SEG/mmseg/models/segmentors/encoder_decoder.py, `slide_inference`, `inference`.

Shapes: n = n_y × n_x windows, g tokens along a side of one, p pixels along the side of a token,
H and W of the original image, C classes.
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

CPU_ELEMENTS = 2**21  # logits in memory at once: 8 MB, about the processor's cache
GPU_ELEMENTS = 2**28  # 1 GB, enough to occupy a GPU


@lru_cache(maxsize=64)
def side_matrix(
    starts: tuple[int, ...], window: int, canvas: int, original: int, grid: int, first: int
) -> Tensor:
    """Return M of one side: (original, n·g), float32.

    `starts` are the first pixels of the n windows of `window` pixels on a canvas of `canvas`
    pixels. Pixels beyond the canvas are padding and are cut off.
    """
    upsampling = side_weights(grid, window, first).double()  # (window, g)
    placed = torch.zeros(canvas, len(starts), grid, dtype=torch.float64)
    covered = torch.zeros(canvas, dtype=torch.float64)
    for index, start in enumerate(starts):
        stop = min(start + window, canvas)
        placed[start:stop, index] = upsampling[: stop - start]
        covered[start:stop] += 1
    averaged = placed.flatten(1) / covered[:, None]  # (canvas, n·g)
    return (side_weights(canvas, original).double() @ averaged).float()


class SlidingPrediction:
    """The geometry of one image: its windows, and its original size (width, height).

    Raise `UsageError` unless the windows cover the image in full rows and columns.
    """

    def __init__(
        self, windows: Sequence[Window], size: tuple[int, int], grid: int, first: int
    ) -> None:
        xs = tuple(sorted({round(window.x0) for window in windows}))
        ys = tuple(sorted({round(window.y0) for window in windows}))
        side, (width, height) = windows[0].size, windows[0].canvas
        corners = [(round(window.y0), round(window.x0)) for window in windows]
        gaps = _has_gap(xs, side, width) or _has_gap(ys, side, height)
        if corners != [(y, x) for y in ys for x in xs] or gaps:
            raise UsageError(
                f"{len(windows)} windows do not cover their image of {width}x{height} pixels in "
                f"rows and columns. Score a store of sliding windows (--views 0)."
            )
        self._shape = (len(ys), len(xs), grid, grid)
        self._rows = side_matrix(ys, side, height, size[1], grid, first)  # M_y (H, n_y·g)
        self._columns = side_matrix(xs, side, width, size[0], grid, first)  # M_x (W, n_x·g)

    def logits(self, coarse: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return logits (r, W, C) of rows of the image from those of the windows (n, g, g, C)."""
        return self._rows_of(self._across(coarse), rows)

    def classes(self, coarse: Tensor) -> Map:
        """Return the class map (H, W), uint8, of coarse logits (n, g, g, C)."""
        across = self._across(coarse)
        height, width = len(self._rows), len(self._columns)
        budget = CPU_ELEMENTS if coarse.device.type == "cpu" else GPU_ELEMENTS
        step = max(1, budget // (width * coarse.shape[-1]))
        classes = np.empty((height, width), np.uint8)
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            logits = self._rows_of(across, rows)  # (r, W, C)
            if logits.device.type == "cpu":  # numpy's argmax is faster than torch's
                classes[rows] = logits.numpy().argmax(-1)
            else:
                classes[rows] = logits.argmax(-1).to(torch.uint8).cpu().numpy()
        return classes

    def _across(self, coarse: Tensor) -> Tensor:
        """Upsample along x: (n_y·g, W, C)."""
        n_y, n_x, g, _ = self._shape
        # (n_y, n_x, g, g, C) → (n_y, g, n_x, g, C) → Z (n_y·g, n_x·g, C)
        z = coarse.view(n_y, n_x, g, g, -1).transpose(1, 2).reshape(n_y * g, n_x * g, -1)
        return self._columns.to(coarse.device) @ z

    def _rows_of(self, across: Tensor, rows: slice) -> Tensor:
        """Return rows of the image (r, W, C) from the few rows of tokens they depend on."""
        weights = self._rows[rows]  # (r, n_y·g)
        used = weights.ne(0).any(0).nonzero()[:, 0]  # tokens near these rows
        mixed = weights[:, used].to(across.device) @ across[used.to(across.device)].flatten(1)
        return mixed.view(len(weights), *across.shape[1:])


def _has_gap(starts: tuple[int, ...], side: int, length: int) -> bool:
    ends = [0, *(start + side for start in starts)]
    return any(a < b for a, b in zip(ends, (*starts, length), strict=True))


def label_shares(
    classes: Map, windows: Sequence[Window], grid: int, n_classes: int
) -> npt.NDArray[np.float32]:
    """Return the share of each class in every token's pixels, (n, g, g, C), float32.

    Used as logits they show the cost of the token resolution: a head that knew the labels of each
    token would, upsampled in the same way, score about this.
    """
    cut = torch.from_numpy(np.stack([cut_mask(classes, window) for window in windows]))
    tiles = cut_tiles(cut, grid).long()  # (n·g², p²)
    shares = torch.zeros(len(tiles), IGNORED + 1)  # (n·g², 256)
    shares.scatter_add_(1, tiles, torch.full(tiles.shape, 1 / tiles.shape[1]))
    on_grid: npt.NDArray[np.float32] = shares[:, :n_classes].view(-1, grid, grid, n_classes).numpy()
    return on_grid
