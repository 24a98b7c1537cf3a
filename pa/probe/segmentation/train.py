"""Train several segmentation heads in one pass over the stored features.

All heads of a run see the same windows in the same order. Each has its own label set, learning rate
and initial weights, and equals the same head trained alone. One matrix product computes the logits
of all heads.

Shapes: B windows, g tokens per side, L = g² tokens, D width, H heads, C classes of one head,
M = sum of C over the heads.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pa.evaluate.devices import full_precision
from pa.probe.checkpoints import Checkpoint
from pa.probe.optim import AdamW, divergence
from pa.probe.segmentation.batches import Batch, TrainingWindows, check_finite, token_features
from pa.probe.segmentation.loss import UpsampledLoss, pixels_per_token
from pa.probe.segmentation.recipes import SegmentationRecipe
from pa.progress import Progress, Silent

CHECK_EVERY = 50  # iterations between checks of the losses, which wait for a GPU
SAVE_SECONDS = 15.0  # between states: the work that a kill may cost


@dataclass(frozen=True)
class HeadSpec:
    """One head: index of its label set, learning rate, and seed of its initial weights."""

    maps: int
    lr: float
    init_seed: int = 0


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """`weight` (C, D), `bias` (C,), float32, on the CPU; `losses` (iterations,) of each batch."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    losses: Tensor  # (iterations,)


class Heads:
    """The parameters of all heads as one matrix, optimized by AdamW.

    `weight` (D, M), `bias` (M,), float32; `lr` (M,) holds the learning rate of each column. The
    update is that of torch.optim.AdamW (Loshchilov & Hutter 2019), with a rate per column.
    """

    def __init__(
        self,
        specs: Sequence[HeadSpec],
        classes: Sequence[int],
        width: int,
        recipe: SegmentationRecipe,
        device: torch.device,
    ) -> None:
        self.sizes = [classes[spec.maps] for spec in specs]
        weights = [
            initial_weight(spec.init_seed, width, n, recipe.init_std)  # (C, D)
            for spec, n in zip(specs, self.sizes, strict=True)
        ]
        self.weight = torch.cat(weights).T.contiguous().to(device)  # (D, M)
        self.bias = torch.zeros(sum(self.sizes), device=device)  # (M,)
        rates = [torch.full((n,), spec.lr) for spec, n in zip(specs, self.sizes, strict=True)]
        self.lr = torch.cat(rates).to(device)  # (M,)
        self._recipe = recipe
        self._moments = {
            name: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for name, parameter in self._parameters().items()
        }

    def _parameters(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}

    def columns(self) -> list[slice]:
        """Return the columns of each head."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    def step(self, iteration: int, gradients: dict[str, Tensor]) -> None:
        """Make one step of AdamW in place; `iteration` counts from 0."""
        recipe = self._recipe
        lr = self.lr * recipe.factor(iteration)  # (M,)
        adamw = AdamW(recipe.beta1, recipe.beta2, recipe.eps, recipe.weight_decay)
        for name, parameter in self._parameters().items():
            decay = name == "weight" or recipe.decay_bias
            moments = self._moments[name]
            adamw.step(parameter, gradients[name], moments, lr, iteration, decay=decay)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state to resume from, by name: the tensors themselves, not copies."""
        named = dict(self._parameters())
        for name, (first, second) in self._moments.items():
            named |= {f"{name}.first": first, f"{name}.second": second}
        return named


def initial_weight(seed: int, width: int, n_classes: int, std: float) -> Tensor:
    """Draw normal weights of one head (C, D), float32, equal on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(n_classes, width).normal_(0.0, std, generator=generator)


def train_heads(
    windows: TrainingWindows,
    specs: Sequence[HeadSpec],
    recipe: SegmentationRecipe,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    state: Path | None = None,
    key: str = "",
    save_seconds: float = SAVE_SECONDS,
) -> list[TrainedHead]:
    """Train heads on stored windows. Equal inputs give equal bits on a CPU.

    `recipe` is shared by the heads, except for learning rate and initial seed. The file `state`
    keeps the state of the run, written every `save_seconds`; a run with the same `key` resumes from
    it, on a CPU to the same bits. Raise `UsageError` if training diverged, with learning rate and
    iteration; `VerificationError` if features are not finite.
    """
    torch_device = torch.device(device)
    classes = [len(maps.classes) for maps in windows.maps]
    heads = Heads(specs, classes, windows.width, recipe, torch_device)
    losses = torch.zeros(recipe.iterations, len(specs), device=torch_device)  # (iterations, H)
    checkpoint = Checkpoint(state, key) if state else None
    start = checkpoint.load({**heads.tensors(), "losses": losses}) if checkpoint else 0
    progress = progress or Silent()
    subject = "a segmentation head" if len(specs) == 1 else f"{len(specs)} segmentation heads"
    progress.start(f"training {subject}", recipe.iterations, "iterations", start)
    pixels = pixels_per_token(windows.windows.windows[0].size, windows.grid)
    cross_entropy = UpsampledLoss(windows.grid, pixels, recipe.upsample_first, torch_device)
    saved = time.monotonic()
    try:
        ahead = windows.batches(start, recipe.iterations)
        with full_precision(), contextlib.closing(ahead) as batches:
            for iteration, batch in enumerate(batches, start):
                loss, gradients = _gradients(windows, batch, specs, heads, cross_entropy, recipe)
                losses[iteration] = loss  # (H,)
                heads.step(iteration, gradients)
                progress.advance(1)
                is_last = iteration + 1 == recipe.iterations  # saved too: scoring may take long
                is_due = is_last or time.monotonic() - saved >= save_seconds
                if is_due or (iteration + 1) % CHECK_EVERY == 0:
                    _check_converging(losses[: iteration + 1], heads, specs)
                if is_due and checkpoint:
                    tensors = {**heads.tensors(), "losses": losses}
                    checkpoint.save(tensors, iteration + 1, last=True)
                    saved = time.monotonic()
    finally:
        progress.stop()
    return [
        TrainedHead(
            heads.weight[:, columns].T.contiguous().cpu(),  # (C, D)
            heads.bias[columns].cpu(),  # (C,)
            losses[:, index].cpu(),  # (iterations,)
        )
        for index, columns in enumerate(heads.columns())
    ]


def _gradients(
    windows: TrainingWindows,
    batch: Batch,
    specs: Sequence[HeadSpec],
    heads: Heads,
    cross_entropy: UpsampledLoss,
    recipe: SegmentationRecipe,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of every head (H,), and the gradients of weight (D, M) and bias (M,)."""
    device, g = heads.weight.device, windows.grid
    features = token_features(batch.raw, device)  # (B·L, D)
    check_finite(features, batch.rows, windows.windows.store)
    logits = torch.addmm(heads.bias, features, heads.weight)  # (B·L, M)
    logits = logits.view(-1, g, g, len(heads.bias))  # (B, g, g, M)
    tiles = [labels.to(device) for labels in batch.tiles]
    error, losses = torch.empty_like(logits), []
    for spec, columns in zip(specs, heads.columns(), strict=True):
        labels = tiles[spec.maps]
        loss, gradient = cross_entropy.sums(logits[..., columns].contiguous(), labels)
        n = max(labels.n_valid, 1) if recipe.loss_over == "valid" else labels.n_pixels
        losses.append(loss / n)
        error[..., columns] = gradient / n  # (B, g, g, C)
    by_token = error.flatten(0, 2)  # (B·L, M)
    gradients = {"weight": features.T @ by_token, "bias": by_token.sum(0)}
    return torch.stack(losses), gradients


def _check_converging(losses: Tensor, heads: Heads, specs: Sequence[HeadSpec]) -> None:
    """Raise `UsageError` for a head whose losses (iterations,) or weights are not finite."""
    for index, columns in enumerate(heads.columns()):
        finite = losses[:, index].isfinite()
        if finite.all() and heads.weight[:, columns].isfinite().all():
            continue
        first = int(finite.int().argmin()) if not finite.all() else len(finite) - 1
        raise divergence([specs[index].lr], f"iteration {first + 1}")
