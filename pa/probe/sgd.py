"""Train a stack of linear heads side by side on features in memory.

One matrix product serves all heads: they see the same batches in the same order, each with its own
start, learning rate, weight decay and momentum, and each ends where it would alone.

Shapes: N rows, B rows of a batch, D width, H heads, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pa.errors import UsageError
from pa.progress import Progress

# What the seed is used for: draws of one purpose do not move when another purpose draws more.
_WEIGHTS, _ORDER = 0, 1


@dataclass(frozen=True)
class Schedule:
    """What all heads of a stack share. `seed` fixes the order of the rows in every epoch."""

    epochs: int
    batch: int
    momentum: float
    seed: int

    def factor(self, epoch: int) -> float:
        """What the learning rate is multiplied by in an epoch, counted from 0: cosine to 0."""
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


@dataclass
class Heads:
    """H heads being trained: `weight` (D, H, C) and `bias` (H, C), float32, changed in place;
    `lr` and `weight_decay` (H,), float32."""

    weight: Tensor
    bias: Tensor
    lr: Tensor
    weight_decay: Tensor


def initial_weight(seed: int, width: int, n_classes: int, std: float) -> Tensor:
    """Normal weights of one head (C, D), float32, equal on every device."""
    generator = _generator(seed, _WEIGHTS)
    return torch.empty(n_classes, width).normal_(0.0, std, generator=generator)


def epoch_order(seed: int, epoch: int, n_rows: int) -> Tensor:
    """The order of the rows in one epoch (N,), int64. Needs no earlier epoch, so that a run can
    be taken up in the middle."""
    return torch.randperm(n_rows, generator=_generator(seed, _ORDER, epoch))


def fit(
    features: Tensor,
    targets: Tensor,
    heads: Heads,
    schedule: Schedule,
    progress: Progress,
) -> Tensor:
    """Minimise cross-entropy by SGD with momentum as torch.optim.SGD defines it.

    `features` (N, D) float32 and `targets` (N,) int64 lie on the device of `heads`. The last batch
    of an epoch may be small; it is used. Returns the mean training loss of each epoch, (epochs, H),
    on the CPU. Raises `UsageError`, with the learning rate and the epoch, where a head diverges.
    """
    momenta = torch.zeros_like(heads.weight), torch.zeros_like(heads.bias)
    losses = torch.empty(schedule.epochs, len(heads.bias))
    for epoch in range(schedule.epochs):
        lr = heads.lr * schedule.factor(epoch)
        total = torch.zeros_like(heads.lr)
        order = epoch_order(schedule.seed, epoch, len(features)).to(features.device)
        for rows in torch.split(order, schedule.batch):
            loss, *gradients = _gradients(features[rows], targets[rows], heads)
            _step(heads, gradients, momenta, lr, schedule.momentum)
            total += loss * len(rows)
        losses[epoch] = (total / len(features)).cpu()
        _check_finite(heads, losses[epoch], epoch, schedule.epochs)
        progress.advance(1)
    return losses


def _gradients(x: Tensor, y: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss of each head (H,), and its gradients (D, H, C) and (H, C)."""
    _, H, C = heads.weight.shape
    logits = (x @ heads.weight.flatten(1)).view(-1, H, C) + heads.bias  # (B, H, C)
    log_p = logits.log_softmax(-1)
    every = torch.arange(len(y), device=y.device)
    loss = -log_p[every, :, y].mean(0)
    # The derivative of cross-entropy by the logits is softmax minus one-hot.
    error = log_p.exp_()
    error[every, :, y] -= 1
    error /= len(y)
    return loss, (x.T @ error.flatten(1)).view(-1, H, C), error.sum(0)


def _step(
    heads: Heads,
    gradients: list[Tensor],
    momenta: tuple[Tensor, Tensor],
    lr: Tensor,
    momentum: float,
) -> None:
    for parameter, gradient, buffer in zip(
        (heads.weight, heads.bias), gradients, momenta, strict=True
    ):
        gradient += heads.weight_decay[:, None] * parameter
        buffer.mul_(momentum).add_(gradient)
        parameter -= lr[:, None] * buffer


def _check_finite(heads: Heads, loss: Tensor, epoch: int, epochs: int) -> None:
    finite = loss.isfinite() & heads.weight.isfinite().all(2).all(0).cpu()
    if not finite.all():
        lr = heads.lr[int(finite.int().argmin())].item()
        raise UsageError(
            f"training diverged: with learning rate {lr:g} the loss is not finite in epoch "
            f"{epoch + 1} of {epochs}. Lower the learning rate with --lr."
        )


def _generator(seed: int, *purpose: int) -> torch.Generator:
    state = np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
