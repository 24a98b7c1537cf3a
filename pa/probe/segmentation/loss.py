"""Cross-entropy at the resolution of the labels, from logits on the token grid.

Upsampling is linear and its weights sum to one, so it commutes with a 1×1 convolution: classify on
the coarse grid, then upsample the logits. Around one token all upsampled logits depend on its 3×3
neighbours only, with the same weights for every token (at the border the nearest token is repeated,
as in bilinear interpolation with `align_corners=False`).

The labels are therefore cut into tiles of p×p pixels, one per token. Tiles are processed a few at a
time, those without a labelled pixel not at all: neither the full-size logits nor their gradients
are in memory. The result equals that of `F.interpolate` and `F.cross_entropy` up to rounding.

Shapes: B windows, g tokens along a side, p label pixels along the side of a token, S = g·p,
C classes, T tiles with a label, t of them processed at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pa.data.datasets.segmentation.labels import IGNORED
from pa.errors import UsageError

NEIGHBOURS = 9  # 3×3
CPU_ELEMENTS = 2**19  # logits in memory at once: 2 MB, which fits into the processor's cache
GPU_ELEMENTS = 2**27  # 0.5 GB, enough to occupy a GPU


def side_weights(grid: int, size: int, first: int = 1) -> Tensor:
    """Return the matrix (size, grid), float32, of bilinear upsampling along one side.

    By `first`, then to `size`, as two calls of `F.interpolate` with `align_corners=False`.
    """
    points = torch.eye(grid)[None, :, None, :]  # (1, grid channels, 1, grid)
    if first > 1:
        points = F.interpolate(points, (1, first * grid), mode="bilinear", align_corners=False)
    return F.interpolate(points, (1, size), mode="bilinear", align_corners=False)[0, :, 0].T


def tile_weights(pixels: int, first: int = 1) -> Tensor:
    """Return the weights (p², 9), float32, of a token's 3×3 neighbours in its p×p label pixels."""
    # The middle one of five tokens: its pixels depend on its neighbours, never on the border.
    side = side_weights(5, 5 * pixels, first)[2 * pixels : 3 * pixels, 1:4]  # (p, 3)
    return torch.kron(side, side)  # (p², 9)


def pixels_per_token(size: int, grid: int) -> int:
    """Return p of a window of `size` pixels and `grid` tokens per side. Raise `UsageError`."""
    if size % grid:
        raise UsageError(
            f"windows of {size} pixels do not divide into {grid} tokens per side, so labels cannot "
            f"be assigned to tokens. Extract with windows of a multiple of the encoder's patch: "
            f"--view-option crop=N."
        )
    return size // grid


def cut_tiles(labels: Tensor, grid: int) -> Tensor:
    """Cut labels (B, S, S) into one row of p² pixels per token: (B·g², p²), tokens row-major."""
    batch, size, _ = labels.shape
    p = size // grid
    tiles = labels.view(batch, grid, p, grid, p).transpose(2, 3)  # (B, g, g, p, p)
    return tiles.reshape(batch * grid * grid, p * p)


@dataclass(frozen=True, eq=False)
class LabelTiles:
    """The labels of a batch, ready for the loss of any number of heads.

    `at` (T,): indices of the tiles with a labelled pixel; `labels` (T, p²), int64, 0 where ignored;
    `valid` (T, p²), float32; `n_valid` and `n_pixels` count pixels of the whole batch.
    """

    at: Tensor
    labels: Tensor
    valid: Tensor
    n_valid: int
    n_pixels: int

    @classmethod
    def of(cls, labels: Tensor, grid: int) -> LabelTiles:
        """Cut labels (B, S, S), uint8, 255 = ignored."""
        tiles = cut_tiles(labels, grid)  # (B·g², p²)
        valid = tiles != IGNORED  # (B·g², p²)
        at = valid.any(1).nonzero()[:, 0]  # (T,)
        valid = valid[at]  # (T, p²)
        kept = tiles[at].long().masked_fill_(~valid, 0)  # (T, p²)
        return cls(at, kept, valid.float(), int(valid.sum()), labels.numel())

    def to(self, device: torch.device) -> LabelTiles:
        at, labels, valid = self.at.to(device), self.labels.to(device), self.valid.to(device)
        return LabelTiles(at, labels, valid, self.n_valid, self.n_pixels)


class UpsampledLoss:
    """Cross-entropy of upsampled logits, with its gradient with respect to the coarse ones."""

    def __init__(self, grid: int, pixels: int, first: int, device: torch.device) -> None:
        self.grid = grid
        self.weights = tile_weights(pixels, first).to(device)  # (p², 9)
        self._at_once = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS

    def sums(self, coarse: Tensor, tiles: LabelTiles) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the labelled pixels, and its gradient (B, g, g, C), float32.

        `coarse` (B, g, g, C), float32, holds logits with their bias. Divide both by `n_valid` or
        `n_pixels` of the tiles for a mean.
        """
        batch, g, _, classes = coarse.shape
        gradient = torch.zeros(batch * g * g, NEIGHBOURS, classes, device=coarse.device)
        losses = [torch.zeros((), device=coarse.device)]
        step = max(1, self._at_once // (len(self.weights) * classes))  # t
        for start in range(0, len(tiles.at), step):
            part = slice(start, start + step)
            at, labels, valid = tiles.at[part], tiles.labels[part], tiles.valid[part]
            logits = self.weights @ _neighbours(coarse, at)  # (t, p², C)
            logits -= logits.amax(-1, keepdim=True)
            at_label = logits.gather(-1, labels[..., None])[..., 0]  # (t, p²)
            error = logits.exp_()  # (t, p², C)
            sums = error.sum(-1)  # (t, p²)
            losses.append(((sums.log() - at_label) * valid).sum())
            # The derivative of cross-entropy with respect to the logits is softmax minus one-hot.
            error *= (valid / sums)[..., None]
            error.scatter_add_(-1, labels[..., None], -valid[..., None])
            gradient[at] = self.weights.T @ error  # (t, 9, C)
        by_neighbour = gradient.view(batch, g, g, NEIGHBOURS, classes)
        return torch.stack(losses).sum(), _sum_to_tokens(by_neighbour)


def _neighbours(coarse: Tensor, at: Tensor) -> Tensor:
    """Gather the 3×3 neighbours of the tokens `at` (t,): (t, 9, C), repeated at the border."""
    _, g, _, classes = coarse.shape
    image, y, x = at // (g * g), at // g % g, at % g
    offsets = torch.arange(-1, 2, device=at.device)  # (3,)
    ys = (y[:, None, None] + offsets[:, None]).clamp(0, g - 1)  # (t, 3, 1)
    xs = (x[:, None, None] + offsets[None, :]).clamp(0, g - 1)  # (t, 1, 3)
    tokens = (image[:, None, None] * g + ys) * g + xs  # (t, 3, 3)
    return coarse.reshape(-1, classes)[tokens.view(-1)].view(len(at), NEIGHBOURS, classes)


def _sum_to_tokens(gradient: Tensor) -> Tensor:
    """Sum the gradients by neighbour (B, g, g, 9, C) to those by token (B, g, g, C).

    Shifted sums have a fixed order, unlike an indexed add on a GPU.
    """
    batch, g, _, _, classes = gradient.shape
    padded = gradient.new_zeros(batch, g + 2, g + 2, classes)  # one more token on each side
    for k in range(NEIGHBOURS):
        dy, dx = divmod(k, 3)
        padded[:, dy : dy + g, dx : dx + g] += gradient[:, :, :, k]
    # Beyond the border the nearest token was repeated: its gradient is returned to that token.
    padded[:, 1] += padded[:, 0]
    padded[:, g] += padded[:, g + 1]
    padded[:, :, 1] += padded[:, :, 0]
    padded[:, :, g] += padded[:, :, g + 1]
    return padded[:, 1 : g + 1, 1 : g + 1]
