"""Cut and resize windows on the encoder's device, bit for bit as Pillow does it on the CPU.

Pillow resizes 8-bit images in integers: a filter's weights are rounded to 22 bits after the point,
each pass sums pixel times weight in 32 bits, rounds, and clips to 0..255; first along the rows,
then along the columns (`Resample.c`). Integer sums depend neither on their order nor on the device,
so the same steps give the same pixels on a GPU, and features do not tell where windows were cut.

Shapes: C canvases of H×W pixels, R windows of w×w, S side of the encoder's input, T taps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

PRECISION_BITS = 32 - 8 - 2


def _bicubic(x: float) -> float:
    """The cubic convolution of Keys with a = -1/2, as Pillow has it."""
    x = abs(x)
    if x < 1:
        return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "bicubic": (_bicubic, 2.0),
    "bilinear": (_bilinear, 1.0),
}


@functools.cache
def weights(
    source: int, target: int, interpolation: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """How `source` pixels of a line become `target`: places and weights of the taps.

    Returns (target, T) int64 places in the line, and (target, T) int32 weights with 22 bits after
    the point; taps that a pixel does not need have the weight 0.
    """
    filter_, support = FILTERS[interpolation]
    scale = source / target
    stretch = max(scale, 1.0)  # shrinking widens the filter
    support *= stretch
    places, taps = [], []
    for pixel in range(target):
        centre = (pixel + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(source, int(centre + support + 0.5))
        raw = [filter_((place - centre + 0.5) / stretch) for place in range(first, last)]
        total = sum(raw)
        taps.append([_fixed(value / total) for value in raw])
        places.append(list(range(first, last)))
    most = max(map(len, taps))
    padded = [[line + [0] * (most - len(line)) for line in lines] for lines in (places, taps)]
    return (
        torch.tensor(padded[0], device=device),
        torch.tensor(padded[1], dtype=torch.int32, device=device),
    )


def _fixed(value: float) -> int:
    """A weight in fixed point, halves away from zero."""
    scaled = abs(value) * (1 << PRECISION_BITS) + 0.5
    return int(math.copysign(math.floor(scaled), value))


def windows(
    canvases: Tensor, canvas_of: Tensor, corners: Tensor, side: int, size: int, interpolation: str
) -> Tensor:
    """Cut R windows and resize them: (R, S, S, 3), uint8, on the device of the canvases.

    `canvases` (C, H, W, 3) uint8; `canvas_of` (R,) int64 says which canvas a window lies on,
    `corners` (R, 2) int64 where its upper left corner is, x and y; all windows are `side` pixels
    wide and high and lie within their canvas. `size` is S. Equals `pa.data.images.crop_resize`.
    """
    reach = torch.arange(side, device=canvases.device)
    x, y = (corners[:, axis, None] + reach for axis in (0, 1))  # (R, w) each
    cut = canvases[canvas_of[:, None, None], y[:, :, None], x[:, None, :]]  # (R, w, w, 3)
    if size == side:
        return cut
    places, taps = weights(side, size, interpolation, canvases.device)
    along_rows = _resample(cut, places, taps, axis=2)
    return _resample(along_rows, places, taps, axis=1)


def _resample(pixels: Tensor, places: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Resize one axis of (R, h, w, 3) uint8 pixels."""
    shape = [1] * pixels.ndim
    shape[axis] = len(places)
    total: Tensor | None = None
    for place, tap in zip(places.unbind(1), taps.unbind(1), strict=True):
        part = pixels.index_select(axis, place) * tap.view(shape)
        total = part if total is None else total.add_(part)
    assert total is not None
    half = 1 << (PRECISION_BITS - 1)
    return total.add_(half).bitwise_right_shift_(PRECISION_BITS).clamp_(0, 255).to(torch.uint8)
