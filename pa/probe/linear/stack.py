"""A stack of linear heads, which share every batch and each end where they would alone.

One matrix product serves all heads. Each has its own initial weights, learning rate, weight decay
and momentum.

Shapes: N rows, B rows of a batch, D width, H heads, C classes, E epochs.
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
        return (x - mean) / torch.sqrt(var + self.eps)  # (B, D)

    def __call__(self, x: Tensor, *, by_batch: bool = False) -> Tensor:
        if by_batch:
            return (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + self.eps)  # (B, D)
        return (x - self.mean) / torch.sqrt(self.var + self.eps)  # (B, D)


@dataclass
class LinearStack:
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

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by the names of a head file, with H as axis 1."""
        named = {"weight": self.weight, "bias": self.bias}
        if self.norm is not None:
            # The statistics are of the features, so all heads share them.
            H = self.bias.shape[1]
            named["bn_mean"] = self.norm.mean[:, None].expand(-1, H)  # (D, H)
            named["bn_var"] = self.norm.var[:, None].expand(-1, H)  # (D, H)
        return named

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return summed loss and hits (H,), and gradients of the mean loss, (C, H, D) and (C, H).

        The derivative of cross-entropy with respect to the logits is softmax minus one-hot.
        """
        rows = torch.arange(len(y), device=y.device)
        log_p = self.logits(x).log_softmax(1)  # (B, C, H)
        true = log_p[rows, y]  # (B, H)
        hits = (true >= log_p.amax(1)).sum(0)  # an argmax over a middle axis is many times slower
        loss = -true.sum(0)  # (H,)
        error = log_p.exp_()  # (B, C, H)
        error[rows, y] -= 1
        error /= len(y)
        return loss, hits, (error.flatten(1).T @ x).view_as(self.weight), error.sum(0)


@dataclass
class History:
    """Metrics of a stack's training, on the CPU.

    `loss` and `accuracy` (E, H), float32, are means over the steps of each epoch. `diverged` (H,),
    int64, is the epoch, counted from 1, in which a head ceased to be finite, or 0.
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
    stack: LinearStack,
    recipe: LinearRecipe,
    progress: Progress,
    after_epoch: Callable[[int], None] | None = None,
) -> History:
    """Minimise cross-entropy by SGD with momentum as torch.optim.SGD defines it, or by LARS.

    `features` (N, D), float16 or float32, and `targets` (N,), int64, are on the device of `stack`,
    which is trained in place with its own rates and weight decays. A head that is no longer finite
    is set to zero, stays there and does not touch the others. `after_epoch` is called with the
    number of the epoch, from 0; `progress` advances by one each epoch.
    """
    parameters = stack.weight, stack.bias
    buffers = torch.zeros_like(stack.weight), torch.zeros_like(stack.bias)
    H, device = stack.weight.shape[1], features.device
    empty = torch.full((recipe.epochs, H), math.nan)
    history = History(empty, empty.clone(), torch.zeros(H, dtype=torch.int64))
    lr = stack.lr.clone()  # (H,)
    for epoch in range(recipe.epochs):
        loss, hits, n_seen = torch.zeros_like(lr), torch.zeros_like(lr), 0  # (H,), (H,)
        batches = epoch_batches(recipe, epoch, len(features))
        for step, rows in enumerate(batches):
            x = features.index_select(0, rows.to(device)).float()  # (B, D)
            x = x if stack.norm is None else stack.norm.train(x)
            losses, right, *gradients = stack.gradients(x, targets[rows.to(device)])
            rates = lr * recipe.factor(epoch + step / len(batches))  # (H,)
            _step(stack, gradients, buffers, rates, recipe)
            loss, hits, n_seen = loss + losses, hits + right, n_seen + len(rows)
        # One transfer per epoch: a transfer per step would wait for the GPU.
        alive = history.diverged == 0  # (H,)
        history.loss[epoch] = torch.where(alive, (loss / n_seen).cpu(), math.nan)
        history.accuracy[epoch] = torch.where(alive, (hits / n_seen).cpu(), math.nan)
        finite = stack.weight.isfinite().all(2).all(0) & stack.bias.isfinite().all(0)  # (H,)
        lost = alive & ~(history.loss[epoch].isfinite() & finite.cpu())  # (H,)
        if lost.any():
            # Zero weights and a rate of zero keep NaN out of the shared matrix product.
            history.diverged[lost] = epoch + 1
            for tensor in (*parameters, *buffers):
                tensor[:, lost.to(device)] = 0.0
            lr[lost.to(device)] = 0.0
        if after_epoch is not None:
            after_epoch(epoch)
        progress.advance(1)
    return history


def _step(
    stack: LinearStack,
    gradients: list[Tensor],
    buffers: tuple[Tensor, Tensor],
    lr: Tensor,
    recipe: LinearRecipe,
) -> None:
    weight, bias = gradients  # (C, H, D), (C, H)
    lars = recipe.optimizer == "lars"
    if stack.weight_decay.any():
        weight += stack.weight_decay[:, None] * stack.weight
        if not lars:
            bias += stack.weight_decay * stack.bias
    if lars:
        # MAE's LARS (util/lars.py): parameters of one axis have neither ratio nor decay.
        weight *= trust_ratios(stack.weight, weight)[:, None]
    sgd_step(stack.weight, weight, buffers[0], recipe.momentum, lr[:, None])
    sgd_step(stack.bias, bias, buffers[1], recipe.momentum, lr)
