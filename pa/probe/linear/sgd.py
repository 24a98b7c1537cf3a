"""Train a stack of linear heads side by side on features in memory.

One matrix product serves all heads: they see the same batches in the same order, each with its own
start, learning rate, weight decay and momentum, and each ends where it would alone.

Shapes: N rows, B rows of a batch, D width, H heads, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pa.progress import Progress

TRUST = 0.001  # coefficient of LARS, as MoCo v3, MAE and CAE have it
BN_MOMENTUM = 0.1

# What the seed is used for: draws of one purpose do not move when another purpose draws more.
_WEIGHTS, _ORDER = 0, 1


@dataclass(frozen=True)
class Schedule:
    """What all heads of a stack share.

    `seed` fixes the order of the rows in every epoch; `warmup` is in epochs; `lars` scales each
    step of a weight by its trust ratio; `bn_eps` puts a BatchNorm without affine before the heads.
    """

    epochs: int
    batch: int
    momentum: float
    seed: int
    warmup: int = 0
    per_iteration: bool = False
    drop_last: bool = False
    lars: bool = False
    bn_eps: float | None = None

    def factor(self, epoch: float) -> float:
        """What the learning rate is multiplied by at a point in epochs, counted from 0: linear from
        0 over the warm-up, then a cosine to 0. By epochs, it is that of the epoch's beginning."""
        at = epoch if self.per_iteration else math.floor(epoch)
        if at < self.warmup:
            return at / self.warmup
        done = (at - self.warmup) / (self.epochs - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    def batches(self, epoch: int, n_rows: int) -> tuple[Tensor, ...]:
        """The rows of each step of an epoch, int64."""
        parts = torch.split(epoch_order(self.seed, epoch, n_rows), self.batch)
        return parts[:-1] if self.drop_last and len(parts) > 1 else parts


@dataclass
class Norm:
    """A BatchNorm without affine: the running `mean` and `var` (D,), changed in place."""

    mean: Tensor
    var: Tensor
    eps: float

    def train(self, x: Tensor) -> Tensor:
        """Normalise a batch by its own statistics, and follow them as torch's BatchNorm does."""
        mean, n = x.mean(0), len(x)
        var = x.var(0, correction=0)
        self.mean.lerp_(mean, BN_MOMENTUM)
        self.var.lerp_(var * (n / max(n - 1, 1)), BN_MOMENTUM)
        return (x - mean) / torch.sqrt(var + self.eps)

    def __call__(self, x: Tensor, *, by_batch: bool = False) -> Tensor:
        if by_batch:
            return (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + self.eps)
        return (x - self.mean) / torch.sqrt(self.var + self.eps)


@dataclass
class Heads:
    """H heads being trained: `weight` (C, H, D) and `bias` (C, H), float32, changed in place;
    `lr` and `weight_decay` (H,), float32; `norm` before all of them, or None."""

    weight: Tensor
    bias: Tensor
    lr: Tensor
    weight_decay: Tensor
    norm: Norm | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Class scores (B, C, H) of normalised features (B, D)."""
        C, H, _ = self.weight.shape
        # Classes before heads: a softmax over C then runs along H values that lie side by side.
        return torch.addmm(self.bias.flatten(), x, self.weight.flatten(0, 1).T).view(-1, C, H)


@dataclass
class Training:
    """The course of a stack's training, on the CPU: `loss` and `accuracy` (epochs, H), float32,
    means over the steps of each epoch; `diverged` (H,), int64, the epoch, counted from 0, in which
    a head ceased to be finite, or -1."""

    loss: Tensor
    accuracy: Tensor
    diverged: Tensor


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
    watch: Callable[[int], None] | None = None,
) -> Training:
    """Minimise cross-entropy by SGD with momentum as torch.optim.SGD defines it, or by LARS.

    `features` (N, D), float16 or float32, and `targets` (N,), int64, lie on the device of `heads`.
    The last batch of an epoch may be small; it is used unless the schedule drops it. `watch` is
    called after each epoch with its number. A head that is no longer finite is set to zero, stays
    there and is reported; it does not touch the others. `progress` advances by one each epoch.
    """
    momenta = torch.zeros_like(heads.weight), torch.zeros_like(heads.bias)
    H = heads.weight.shape[1]
    course = Training(
        torch.full((schedule.epochs, H), math.nan),
        torch.full((schedule.epochs, H), math.nan),
        torch.full((H,), -1),
    )
    lr = heads.lr.clone()
    for epoch in range(schedule.epochs):
        loss, right, seen = torch.zeros_like(lr), torch.zeros_like(lr), 0
        batches = schedule.batches(epoch, len(features))
        for step, rows in enumerate(batches):
            x = features.index_select(0, rows.to(features.device)).float()
            x = x if heads.norm is None else heads.norm.train(x)
            rates = lr * schedule.factor(epoch + step / len(batches))
            losses, hits, *gradients = _gradients(x, targets[rows.to(targets.device)], heads)
            _step(heads, gradients, momenta, rates, schedule)
            loss, right, seen = loss + losses, right + hits, seen + len(rows)
        alive = course.diverged < 0
        course.loss[epoch] = torch.where(alive, (loss / seen).cpu(), math.nan)
        course.accuracy[epoch] = torch.where(alive, (right / seen).cpu(), math.nan)
        lost = alive & ~_finite(heads, course.loss[epoch])
        if lost.any():
            course.diverged[lost] = epoch
            _stop(heads, momenta, lr, lost.to(lr.device))
        if watch is not None:
            watch(epoch)
        progress.advance(1)
    return course


def _gradients(x: Tensor, y: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Summed loss and hits of each head (H,); gradients of the mean loss (C, H, D), (C, H)."""
    every = torch.arange(len(y), device=y.device)
    log_p = heads.logits(x).log_softmax(1)
    true = log_p[every, y]
    hits = (true >= log_p.amax(1)).sum(0)  # an argmax over a middle axis is many times slower
    loss = -true.sum(0)
    # The derivative of cross-entropy by the logits is softmax minus one-hot.
    error = log_p.exp_()
    error[every, y] -= 1
    error /= len(y)
    return loss, hits, (error.flatten(1).T @ x).view_as(heads.weight), error.sum(0)


def _step(
    heads: Heads,
    gradients: list[Tensor],
    momenta: tuple[Tensor, Tensor],
    lr: Tensor,
    schedule: Schedule,
) -> None:
    weight, bias = gradients
    if heads.weight_decay.any():
        weight += heads.weight_decay[:, None] * heads.weight
        if not schedule.lars:
            bias += heads.weight_decay * heads.bias
    if schedule.lars:
        weight *= _trust(heads.weight, weight)[:, None]
    for parameter, gradient, buffer, rate in zip(
        (heads.weight, heads.bias), (weight, bias), momenta, (lr[:, None], lr), strict=True
    ):
        buffer.mul_(schedule.momentum).add_(gradient)
        parameter.addcmul_(buffer, rate, value=-1)


def _trust(weight: Tensor, update: Tensor) -> Tensor:
    """LARS's ratio of each head (H,): coefficient · ‖weight‖ / ‖update‖; 1 where either is 0."""
    norms = weight.norm(dim=(0, 2)), update.norm(dim=(0, 2))
    there = (norms[0] > 0) & (norms[1] > 0)
    return torch.where(there, TRUST * norms[0] / norms[1], 1.0)


def _finite(heads: Heads, loss: Tensor) -> Tensor:
    """(H,) bool, on the CPU."""
    finite = heads.weight.isfinite().all(2).all(0) & heads.bias.isfinite().all(0)
    return loss.isfinite() & finite.cpu()


def _stop(heads: Heads, momenta: tuple[Tensor, Tensor], lr: Tensor, lost: Tensor) -> None:
    for tensor in (heads.weight, heads.bias, *momenta):
        tensor[:, lost] = 0.0
    lr[lost] = 0.0


def _generator(seed: int, *purpose: int) -> torch.Generator:
    state = np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
