"""Train a stack of linear heads together on features in memory.

One matrix product serves all heads: they see the same batches in the same order, each with its own
initial weights, learning rate, weight decay and momentum, and each ends where it would alone.

Shapes: N rows, B rows of a batch, D width, H heads, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pa.probe.linear.recipes import LinearRecipe
from pa.probe.optim import seeded_generator, sgd_step, trust_ratios
from pa.progress import Progress

BN_MOMENTUM = 0.1  # torch's default

WEIGHTS, ORDER = 0, 1  # purposes of the seed


@dataclass
class Norm:
    """A BatchNorm without affine: running `mean` and `var` (D,), changed in place."""

    mean: Tensor
    var: Tensor
    eps: float

    def train(self, x: Tensor) -> Tensor:
        """Normalise a batch (B, D) by its statistics and update the running ones."""
        mean, n = x.mean(0), len(x)  # (D,)
        var = x.var(0, correction=0)  # (D,)
        self.mean.lerp_(mean, BN_MOMENTUM)
        self.var.lerp_(var * (n / max(n - 1, 1)), BN_MOMENTUM)  # unbiased, as in torch's BatchNorm
        return (x - mean) / torch.sqrt(var + self.eps)

    def __call__(self, x: Tensor, *, by_batch: bool = False) -> Tensor:
        if by_batch:
            return (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + self.eps)
        return (x - self.mean) / torch.sqrt(self.var + self.eps)


@dataclass
class Heads:
    """H heads in training: `weight` (C, H, D), `bias` (C, H), `lr` and `weight_decay` (H,).

    All are float32 on one device; weight and bias are changed in place. `norm` precedes all heads.
    """

    weight: Tensor
    bias: Tensor
    lr: Tensor
    weight_decay: Tensor
    norm: Norm | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Return class scores (B, C, H) of normalised features (B, D)."""
        C, H, _ = self.weight.shape
        # Classes precede heads, so that a softmax over C reads H contiguous values at a time.
        flat = torch.addmm(self.bias.flatten(), x, self.weight.flatten(0, 1).T)  # (B, C·H)
        return flat.view(-1, C, H)


@dataclass
class History:
    """Metrics of a stack's training, on the CPU.

    `loss` and `accuracy` (epochs, H), float32, are means over the steps of each epoch. `diverged`
    (H,), int64, is the epoch, counted from 0, in which a head ceased to be finite, or -1.
    """

    loss: Tensor
    accuracy: Tensor
    diverged: Tensor


def initial_weight(seed: int, width: int, n_classes: int, std: float) -> Tensor:
    """Return normal weights of one head (C, D), float32, equal on every device."""
    generator = seeded_generator(seed, WEIGHTS)
    return torch.empty(n_classes, width).normal_(0.0, std, generator=generator)


def epoch_order(seed: int, epoch: int, n_rows: int) -> Tensor:
    """Return the order of the rows in one epoch (N,), int64, independent of earlier epochs."""
    return torch.randperm(n_rows, generator=seeded_generator(seed, ORDER, epoch))


def epoch_batches(recipe: LinearRecipe, epoch: int, n_rows: int) -> tuple[Tensor, ...]:
    """Return the rows of each step of an epoch, int64, (B,) each."""
    batches = torch.split(epoch_order(recipe.seed, epoch, n_rows), recipe.batch)
    return batches[:-1] if recipe.drop_last and len(batches) > 1 else batches


def fit(
    features: Tensor,
    targets: Tensor,
    heads: Heads,
    recipe: LinearRecipe,
    progress: Progress,
    after_epoch: Callable[[int], None] | None = None,
) -> History:
    """Minimise cross-entropy by SGD with momentum as torch.optim.SGD defines it, or by LARS.

    `features` (N, D), float16 or float32, and `targets` (N,), int64, are on the device of `heads`,
    which are trained in place with their own rates and weight decays. A head that is no longer
    finite is set to zero, stays there and does not touch the others. `after_epoch` is called with
    the number of the epoch, from 0; `progress` advances by one each epoch.
    """
    buffers = torch.zeros_like(heads.weight), torch.zeros_like(heads.bias)
    H = heads.weight.shape[1]
    history = History(
        torch.full((recipe.epochs, H), math.nan),
        torch.full((recipe.epochs, H), math.nan),
        torch.full((H,), -1),
    )
    lr = heads.lr.clone()  # (H,)
    for epoch in range(recipe.epochs):
        loss, hits, n_seen = torch.zeros_like(lr), torch.zeros_like(lr), 0  # (H,), (H,)
        batches = epoch_batches(recipe, epoch, len(features))
        for step, rows in enumerate(batches):
            x = features.index_select(0, rows.to(features.device)).float()  # (B, D)
            x = x if heads.norm is None else heads.norm.train(x)
            rates = lr * recipe.factor(epoch + step / len(batches))
            losses, right, *gradients = _gradients(x, targets[rows.to(targets.device)], heads)
            _step(heads, gradients, buffers, rates, recipe)
            loss, hits, n_seen = loss + losses, hits + right, n_seen + len(rows)
        alive = history.diverged < 0  # (H,)
        history.loss[epoch] = torch.where(alive, (loss / n_seen).cpu(), math.nan)
        history.accuracy[epoch] = torch.where(alive, (hits / n_seen).cpu(), math.nan)
        finite = heads.weight.isfinite().all(2).all(0) & heads.bias.isfinite().all(0)  # (H,)
        lost = alive & ~(history.loss[epoch].isfinite() & finite.cpu())
        if lost.any():
            history.diverged[lost] = epoch
            for tensor in (heads.weight, heads.bias, *buffers):
                tensor[:, lost.to(lr.device)] = 0.0
            lr[lost.to(lr.device)] = 0.0
        if after_epoch is not None:
            after_epoch(epoch)
        progress.advance(1)
    return history


def _gradients(x: Tensor, y: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return summed loss and hits of each head (H,), gradients of the mean loss (C, H, D), (C, H).

    The derivative of cross-entropy with respect to the logits is softmax minus one-hot.
    """
    rows = torch.arange(len(y), device=y.device)
    log_p = heads.logits(x).log_softmax(1)  # (B, C, H)
    true = log_p[rows, y]  # (B, H)
    hits = (true >= log_p.amax(1)).sum(0)  # an argmax over a middle axis is many times slower
    loss = -true.sum(0)
    error = log_p.exp_()
    error[rows, y] -= 1
    error /= len(y)
    return loss, hits, (error.flatten(1).T @ x).view_as(heads.weight), error.sum(0)


def _step(
    heads: Heads,
    gradients: list[Tensor],
    buffers: tuple[Tensor, Tensor],
    lr: Tensor,
    recipe: LinearRecipe,
) -> None:
    weight, bias = gradients  # (C, H, D), (C, H)
    lars = recipe.optimizer == "lars"
    if heads.weight_decay.any():
        weight += heads.weight_decay[:, None] * heads.weight
        if not lars:
            bias += heads.weight_decay * heads.bias
    if lars:
        weight *= trust_ratios(heads.weight, weight)[:, None]
    sgd_step(heads.weight, weight, buffers[0], recipe.momentum, lr[:, None])
    sgd_step(heads.bias, bias, buffers[1], recipe.momentum, lr)
