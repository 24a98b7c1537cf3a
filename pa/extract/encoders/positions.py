"""Resize the positions of each method to another grid of patches.

L: patches of a grid of h rows and w columns, D: width, A: attention heads, n: side of the native
grid or window. A window of side n has (2n-1)² relative offsets; BEiT's table has three more rows,
for the class token.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pa.errors import UsageError

Grid = tuple[int, int]
Network = Any  # a timm network: an nn.Module with attributes that type checkers cannot see

DINO_OFFSET = 0.1  # dino/vision_transformer.py: against rounding; also shifts the sampling points
EXTRA_ROWS = 3  # class to token, token to class, class to class


class Resize(Protocol):
    __name__: str

    def __call__(self, table: Tensor, grid: Grid, /) -> Tensor: ...


class AbsolutePositions:
    """A table pos_embed (1, 1+L, D), row 0 for the class token.

    The native table is kept in float32 outside the network.
    """

    def __init__(self, resize: Resize) -> None:
        self.rule = resize.__name__  # recorded in the spec
        self._resize = resize
        self._native = torch.empty(0)  # set by `remember`

    def remember(self, model: Network) -> None:
        """Save the native table before the network is cast or moved."""
        self._native = model.pos_embed.detach().float().cpu().clone()  # (1, 1+L, D)

    def at(self, model: Network, grid: Grid) -> Network:
        """Return a copy of the network for another grid, which shares all other weights."""
        # A shallow copy: the weights of a ViT-B are 340 MB.
        variant = copy.copy(model)
        variant._parameters = dict(model._parameters)
        variant._modules = dict(model._modules)
        self._apply(variant, grid, next(model.parameters()))
        return variant

    def _apply(self, variant: Network, grid: Grid, like: Tensor) -> None:
        # Interpolated in float32 and cast afterwards, whatever the precision of the network.
        table = self._resize(self._native, grid).to(like.device, like.dtype)  # (1, 1+h*w, D)
        variant.pos_embed = nn.Parameter(table, requires_grad=False)


class SharedRelativePositions(AbsolutePositions):
    """BEiT's table ((2n-1)²+3, A), one for all blocks."""

    def __init__(self) -> None:
        super().__init__(resize_relative_table)

    def remember(self, model: Network) -> None:
        table = model.rel_pos_bias.relative_position_bias_table
        self._native = table.detach().float().cpu().clone()  # ((2n-1)²+3, A)

    def _apply(self, variant: Network, grid: Grid, like: Tensor) -> None:
        from timm.models.beit import RelativePositionBias

        table = self._resize(self._native, grid)
        bias = RelativePositionBias(window_size=grid, num_heads=table.shape[1])
        bias.relative_position_bias_table = nn.Parameter(table, requires_grad=False)
        variant.rel_pos_bias = bias.to(like.device, like.dtype)


def native_grid(n_patches: int) -> int:
    """Return the side of the square grid that a table of positions was trained on."""
    return round(math.sqrt(n_patches))


def _square(grid: Grid, method: str) -> int:
    if grid[0] != grid[1]:
        raise UsageError(
            f"{method} has no rule for positions on a grid of {grid[0]}x{grid[1]} patches: use "
            "square images. DINO and iBOT accept rectangles."
        )
    return grid[0]


def _interpolate(table: Tensor, **target: Any) -> Tensor:
    """Resize the patch rows of a table (1, 1+L, D) as an image; the class row stays."""
    n = native_grid(table.shape[1] - 1)
    image = table[:, 1:].reshape(1, n, n, -1).permute(0, 3, 1, 2)  # (1, D, n, n)
    resized = F.interpolate(image, mode="bicubic", align_corners=False, **target)  # (1, D, h, w)
    return torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def bicubic_to_size(table: Tensor, grid: Grid) -> Tensor:
    """Resize by target size: deit/main.py, mae/util/pos_embed.py and CAE; square grids only."""
    _square(grid, "this encoder")
    return _interpolate(table, size=grid)


def bicubic_by_factor(table: Tensor, grid: Grid) -> Tensor:
    """Resize by scale factor: interpolate_pos_encoding of DINO and iBOT; any grid.

    The offset of 0.1 remains in the factor and thus in the sampling points, so the result differs
    from resizing to the target size.
    """
    n = native_grid(table.shape[1] - 1)
    factor = ((grid[0] + DINO_OFFSET) / n, (grid[1] + DINO_OFFSET) / n)
    return _interpolate(table, scale_factor=factor)


def resize_relative_table(table: Tensor, grid: Grid) -> Tensor:
    """Resize BEiT's table ((2n-1)^2 + 3, A) to another window (run_class_finetuning.py).

    Source and target offsets are points of one axis, the source offsets in a geometric progression
    from the centre, so near offsets keep their detail. A cubic spline per head interpolates as
    scipy's removed interp2d(kind="cubic") did, clamped outside.
    """
    from scipy.interpolate import RectBivariateSpline

    n_source = native_grid(table.shape[0] - EXTRA_ROWS)  # 2n-1 offsets along an axis
    n_target = 2 * _square(grid, "BEiT") - 1  # offsets of the new window
    if n_source == n_target:
        return table
    source = _geometric_axis(n_source, n_target)
    target = np.arange(n_target, dtype=np.float64) - n_target // 2
    offsets = table[:-EXTRA_ROWS].double().numpy()
    offsets = offsets.reshape(n_source, n_source, -1)  # (2n-1, 2n-1, A)
    heads = [  # (2n'-1, 2n'-1) each; transposed twice, as interp2d has x first: equal bit for bit
        RectBivariateSpline(source, source, offsets[:, :, head].T)(target, target).T
        for head in range(offsets.shape[2])
    ]
    resized = torch.from_numpy(np.stack(heads, axis=-1).reshape(n_target**2, -1))
    return torch.cat([resized.to(table.dtype), table[-EXTRA_ROWS:]])


def _geometric_axis(n_source: int, n_target: int) -> npt.NDArray[np.float64]:
    """Return the coordinates of the source offsets: 0, ±1, ±(1+q), ±(1+q+q²) …

    The outermost one equals the outermost target offset.
    """
    half = n_source // 2
    low, high, q = 1.01, 1.5, 1.5  # official bracket; q nears 1.5 where the window grows too much
    while high - low > 1e-6:
        q = (low + high) / 2.0
        reach = (1.0 - q**half) / (1.0 - q)
        low, high = (low, q) if reach > n_target // 2 else (q, high)
    steps = np.cumsum([q**i for i in range(half)])
    return np.concatenate([-steps[::-1], [0.0], steps])


Order = Literal["row", "column"]
SINCOS_TOLERANCE = 1e-2  # bfloat16 rounds values near 1 by up to 4e-3


def sincos_order(table: Tensor | None) -> Order | None:
    """Recognise a fixed sin-cos table (1, 1+L, D): "row" first, "column" first, or neither.

    Values that are not finite are ignored: loading reports them by name.
    """
    if table is None or table.ndim != 3 or table.shape[2] % 4:
        return None
    n = native_grid(table.shape[1] - 1)
    if n < 2 or n**2 != table.shape[1] - 1:
        return None
    table = table.float()
    finite = table.isfinite()
    if finite.float().mean() < 0.5:
        return None
    orders: tuple[Order, ...] = ("row", "column")
    for order in orders:
        # Loose enough for a table in bfloat16; a learned table differs by far more.
        near = (table - sincos_table(table.shape[2], n, order)).abs() < SINCOS_TOLERANCE
        if bool((near | ~finite).all()):
            return order
    return None


def sincos_table(width: int, n: int, first: Order) -> Tensor:
    """Return the fixed sin-cos table (1, 1+n*n, D) of MoCo v3 and CAE (row) or MAE (column)."""
    omega = 1.0 / 10000.0 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(n, dtype=torch.float64)[:, None] * omega  # (n, D/4)
    half = torch.cat([angle.sin(), angle.cos()], dim=1)  # (n, D/2)
    by_row, by_column = half[:, None].expand(n, n, -1), half[None].expand(n, n, -1)
    halves = (by_row, by_column) if first == "row" else (by_column, by_row)
    patches = torch.cat(halves, dim=2).reshape(1, n * n, width)
    return torch.cat([torch.zeros(1, 1, width, dtype=torch.float64), patches], dim=1).float()
