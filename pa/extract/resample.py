"""Cut and resize windows on the encoder's device, equal bit for bit to Pillow on the CPU.

Pillow resizes 8-bit images in integers: the weights of a filter are rounded to 22 fractional bits;
each pass sums pixel times weight in 32 bits, rounds, and clips to 0..255; first along the rows,
then along the columns (`Resample.c`). Integer sums depend neither on their order nor on the device,
so a GPU computes the same pixels.

C: canvases of H×W pixels, R: windows of w×w pixels, S: side of the encoder's input, T: taps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

PRECISION_BITS = 32 - 8 - 2  # Resample.c: 32-bit sums of 8-bit pixels, two bits for overshoot


def _bicubic(x: float) -> float:
    """Evaluate the cubic convolution of Keys with a = -1/2, as Pillow does."""
    x = abs(x)
    if x < 1:
        return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "bicubic": (_bicubic, 2.0),
    "bilinear": (lambda x: max(0.0, 1 - abs(x)), 1.0),
}


@functools.cache
def weights(
    source: int, target: int, interpolation: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the positions and weights of the taps that resize a line of `source` pixels.

    Positions are (target, T) int64, weights (target, T) int32 with 22 fractional bits; unused taps
    have weight 0.
    """
    filter_, support = FILTERS[interpolation]
    scale = source / target
    stretch = max(scale, 1.0)  # a filter for reduction is wider
    support *= stretch
    positions, taps = [], []
    for pixel in range(target):
        centre = (pixel + 0.5) * scale  # in source pixels
        first = max(0, int(centre - support + 0.5))
        last = min(source, int(centre + support + 0.5))
        raw = [filter_((x - centre + 0.5) / stretch) for x in range(first, last)]
        total = sum(raw)
        taps.append([_fixed(value / total) for value in raw])
        positions.append(list(range(first, last)))
    most = max(map(len, taps))  # T
    padded = [[line + [0] * (most - len(line)) for line in lines] for lines in (positions, taps)]
    return (
        torch.tensor(padded[0], device=device),
        torch.tensor(padded[1], dtype=torch.int32, device=device),
    )


def _fixed(value: float) -> int:
    """Return a weight in fixed point, halves rounded away from zero."""
    scaled = abs(value) * (1 << PRECISION_BITS) + 0.5
    return int(math.copysign(math.floor(scaled), value))


def windows(
    canvases: Tensor, canvas_of: Tensor, corners: Tensor, side: int, size: int, interpolation: str
) -> Tensor:
    """Cut R windows and resize them to (R, S, S, 3) uint8, on the device of the canvases.

    The result equals that of `pa.data.images.crop_resize`.

    Parameters
    ----------
    canvases
        (C, H, W, 3) uint8.
    canvas_of
        (R,) int64, the canvas of each window.
    corners
        (R, 2) int64, x and y of the upper left corner; windows are inside their canvas.
    side, size
        Side of the windows in pixels, and S.
    """
    reach = torch.arange(side, device=canvases.device)
    x, y = (corners[:, axis, None] + reach for axis in (0, 1))  # (R, w) each
    cut = canvases[canvas_of[:, None, None], y[:, :, None], x[:, None, :]]  # (R, w, w, 3)
    if size == side:
        return cut
    positions, taps = weights(side, size, interpolation, canvases.device)
    along_rows = _resample(cut, positions, taps, axis=2)  # (R, w, S, 3)
    return _resample(along_rows, positions, taps, axis=1)  # (R, S, S, 3)


def _resample(pixels: Tensor, positions: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Resize one axis of (R, h, w, 3) uint8 pixels."""
    shape = [1] * pixels.ndim
    shape[axis] = len(positions)
    total: Tensor | None = None
    for position, tap in zip(positions.unbind(1), taps.unbind(1), strict=True):
        part = pixels.index_select(axis, position) * tap.view(shape)
        total = part if total is None else total.add_(part)
    assert total is not None
    half = 1 << (PRECISION_BITS - 1)
    return total.add_(half).bitwise_right_shift_(PRECISION_BITS).clamp_(0, 255).to(torch.uint8)
