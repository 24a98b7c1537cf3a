"""Cross-entropy at the resolution of the labels, from logits on the grid of tokens.

Enlarging is linear, and its weights sum to one, so a 1×1 convolution may be applied before it:
classify on the coarse grid, enlarge the logits (architecture.md, 6.2). Around one token all
enlarged logits depend on its 3×3 neighbours only, by weights which are the same for every token
(the border repeats itself, as bilinear enlarging does with `align_corners=False`). So the labels
are cut into tiles of p×p pixels, one per token; tiles are taken a few at a time, tiles without a
labelled pixel not at all, and neither the full-size logits nor their gradients are ever in memory
at once. The result is that of `F.interpolate` and `F.cross_entropy`, to rounding.

Shapes: B windows, g tokens along a side, p label pixels along the side of a token, S = g·p,
C classes, T tiles with a label, t of them taken at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pa.data.datasets.segmentation.labels import IGNORED
from pa.errors import UsageError

NEIGHBOURS = 9
# Logits in memory at once: few enough for the processor's caches, many enough for a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**27


def enlarge(maps: Tensor, size: int, first: int = 1) -> Tensor:
    """Enlarge maps (B, C, g, g) to (B, C, size, size): bilinear by `first`, then to the size."""
    if first > 1:
        maps = F.interpolate(maps, scale_factor=first, mode="bilinear", align_corners=False)
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)


def side_weights(grid: int, size: int, first: int = 1) -> Tensor:
    """The matrix (size, grid), float32, that `enlarge` applies along each side."""
    points = torch.eye(grid)[None, :, None, :]  # (1, grid channels, 1, grid)
    if first > 1:
        points = F.interpolate(points, (1, first * grid), mode="bilinear", align_corners=False)
    return F.interpolate(points, (1, size), mode="bilinear", align_corners=False)[0, :, 0].T


def tile_weights(pixels: int, first: int = 1) -> Tensor:
    """Weights (p², 9), float32, of a token's 3×3 neighbours in each of its p×p label pixels."""
    # The middle of five tokens: its pixels see their neighbours and never the border.
    side = side_weights(5, 5 * pixels, first)[2 * pixels : 3 * pixels, 1:4]
    return torch.kron(side, side)


def pixels_per_token(size: int, grid: int) -> int:
    """p of a window of `size` pixels and `grid` tokens along a side. Raises `UsageError`."""
    if size % grid:
        raise UsageError(
            f"windows of {size} pixels do not divide into {grid} tokens a side: labels cannot be "
            f"laid onto the tokens. Extract with windows of a multiple of the encoder's patch: "
            f"--view-option crop=N."
        )
    return size // grid


def cut_tiles(labels: Tensor, grid: int) -> Tensor:
    """Labels (B, S, S) as one line of p² pixels per token: (B·g², p²), tokens row-major."""
    batch, size, _ = labels.shape
    p = size // grid
    tiles = labels.view(batch, grid, p, grid, p).transpose(2, 3)
    return tiles.reshape(batch * grid * grid, p * p)


@dataclass(frozen=True, eq=False)
class LabelTiles:
    """The labels of a batch, ready for the loss of any number of heads.

    `at` (T,): which tiles of the batch have a labelled pixel; `labels` (T, p²), int64, 0 where
    ignored; `valid` (T, p²), float32; `n_valid` and `n_pixels` count pixels of the whole batch.
    """

    at: Tensor
    labels: Tensor
    valid: Tensor
    n_valid: int
    n_pixels: int

    @classmethod
    def of(cls, labels: Tensor, grid: int) -> LabelTiles:
        """Cut labels (B, S, S), uint8, 255 = ignored."""
        tiles = cut_tiles(labels, grid)
        valid = tiles != IGNORED
        at = valid.any(1).nonzero()[:, 0]
        valid = valid[at]
        kept = tiles[at].long().masked_fill_(~valid, 0)
        return cls(at, kept, valid.float(), int(valid.sum()), labels.numel())

    def to(self, device: torch.device) -> LabelTiles:
        at, labels, valid = self.at.to(device), self.labels.to(device), self.valid.to(device)
        return LabelTiles(at, labels, valid, self.n_valid, self.n_pixels)


class UpsampledLoss:
    """Cross-entropy of enlarged logits, with its gradient by the coarse ones."""

    def __init__(self, grid: int, pixels: int, first: int, device: torch.device) -> None:
        self.grid = grid
        self.weights = tile_weights(pixels, first).to(device)
        self._at_once = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS

    def sums(self, coarse: Tensor, tiles: LabelTiles) -> tuple[Tensor, Tensor]:
        """Loss summed over the labelled pixels, and its gradient.

        `coarse` (B, g, g, C), float32, logits with their bias. Returns a scalar and a tensor shaped
        as `coarse`, float32; divide both by `n_valid` or `n_pixels` for a mean.
        """
        batch, g, _, classes = coarse.shape
        gradient = torch.zeros(batch * g * g, NEIGHBOURS, classes, device=coarse.device)
        losses = [torch.zeros((), device=coarse.device)]
        step = max(1, self._at_once // (len(self.weights) * classes))
        for start in range(0, len(tiles.at), step):
            part = slice(start, start + step)
            at = tiles.at[part]
            corners = _neighbours(coarse, at)  # (t, 9, C)
            loss, by_corner = self._tiles(corners, tiles.labels[part], tiles.valid[part])
            losses.append(loss)
            gradient[at] = by_corner
        return torch.stack(losses).sum(), _scatter(gradient.view(batch, g, g, NEIGHBOURS, classes))

    def _tiles(self, corners: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of a few tiles, and its gradient by their corners (t, 9, C)."""
        logits = self.weights @ corners  # (t, p², C)
        logits -= logits.amax(-1, keepdim=True)
        at_label = logits.gather(-1, labels[..., None])[..., 0]
        error = logits.exp_()
        sums = error.sum(-1)
        loss = ((sums.log() - at_label) * valid).sum()
        # The derivative of cross-entropy by the logits is softmax minus one-hot.
        error *= (valid / sums)[..., None]
        error.scatter_add_(-1, labels[..., None], -valid[..., None])
        return loss, self.weights.T @ error


def _neighbours(coarse: Tensor, at: Tensor) -> Tensor:
    """The 3×3 neighbours of the tokens `at` (t,): (t, 9, C); the border repeats itself."""
    _, g, _, classes = coarse.shape
    image, y, x = at // (g * g), at // g % g, at % g
    offsets = torch.arange(-1, 2, device=at.device)
    ys = (y[:, None, None] + offsets[:, None]).clamp(0, g - 1)  # (t, 3, 1)
    xs = (x[:, None, None] + offsets[None, :]).clamp(0, g - 1)  # (t, 1, 3)
    places = (image[:, None, None] * g + ys) * g + xs
    return coarse.reshape(-1, classes)[places.view(-1)].view(len(at), NEIGHBOURS, classes)


def _scatter(gradient: Tensor) -> Tensor:
    """Sum the gradients by neighbours (B, g, g, 9, C) to those by tokens (B, g, g, C).

    Shifted sums in a fixed order, and not an indexed add, which on a GPU has no order.
    """
    batch, g, _, _, classes = gradient.shape
    padded = gradient.new_zeros(batch, g + 2, g + 2, classes)
    for k in range(NEIGHBOURS):
        dy, dx = divmod(k, 3)
        padded[:, dy : dy + g, dx : dx + g] += gradient[:, :, :, k]
    padded[:, 1] += padded[:, 0]
    padded[:, g] += padded[:, g + 1]
    padded[:, :, 1] += padded[:, :, 0]
    padded[:, :, g] += padded[:, :, g + 1]
    return padded[:, 1 : g + 1, 1 : g + 1]
