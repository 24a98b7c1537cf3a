"""Train attentive heads together: one pass over the tokens serves all of them.

All heads of a run see the same batches in the same order; each has its own first weights and its
own learning rate, and ends where it would alone.

Shapes: H heads, N training rows, n test rows, B rows of a batch, D width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pa.evaluate.precision import full_precision
from pa.probe.attentive.heads import Heads
from pa.probe.attentive.recipes import AttentiveRecipe
from pa.probe.attentive.tokens import Batch, Tokens, bad_rows
from pa.probe.checkpoints import Checkpoint
from pa.probe.optim import divergence, sgd_step
from pa.probe.selection import non_finite
from pa.progress import Progress, Silent


@dataclass(frozen=True)
class Candidate:
    """One head: the seed of its first weights and its learning rate (a value of the field `lr`)."""

    seed: int
    lr: float


@dataclass(frozen=True, eq=False)
class Trained:
    """Heads after training, and their history; all but `heads` is on the CPU."""

    heads: Heads  # of the reported epochs
    epoch: Tensor  # (H,) reported, counted from 1
    predicted: Tensor  # (H, n) class indices of the test rows by the reported heads
    last_predicted: Tensor  # (H, n) by the heads of the last epoch
    test_loss: Tensor  # (H,) of the last epoch
    loss: Tensor  # (epochs, H) mean over the training rows while an epoch trains
    accuracy: Tensor  # (epochs, H), likewise
    test_accuracy: Tensor  # (epochs, H) after each epoch, NaN unless monitored
    diverged: Tensor  # (H,) epoch, from 1, in which a head ceased to be finite, or 0
    resumed: int  # epochs done by an earlier run


def train_heads(
    train: Tokens,
    test: Tokens,
    n_classes: int,
    candidates: Sequence[Candidate],
    recipe: AttentiveRecipe,
    *,
    device: torch.device,
    best_on_test: bool = False,
    tolerant: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
    title: str = "training attentive heads",
) -> Trained:
    """Train one head for each candidate on `train` and predict `test`.

    With `best_on_test`, keep the head of the epoch that scored best on the test rows. A
    `checkpoint` saves the state after each epoch; a run with the same key resumes from it, on the
    CPU to the same bits. Equal inputs give equal bits on the CPU, whether tokens are in memory or
    streamed; no global generator is seeded. `progress` advances by steps.

    Raise `UsageError`, with the learning rate, for divergence of one head, or with `tolerant` of
    all; `VerificationError` for tokens that are not finite.
    """
    width = train.patches.store.shape(train.patches.representation)[-1]
    heads = Heads.new(
        [candidate.seed for candidate in candidates], width, n_classes, recipe, device
    )
    run = _Run(heads, candidates, recipe, len(test) if best_on_test else None)
    start = checkpoint.load(run.tensors()) if checkpoint else 0
    for parameter in heads.parameters.values():
        parameter.requires_grad_(True)
    steps = -(-len(train) // recipe.batch)  # rounded up
    progress = progress or Silent()
    progress.start(title, recipe.epochs * steps, "steps", start * steps)
    if start:
        progress.note(f"resuming after epoch {start} of {recipe.epochs}")
    try:
        with full_precision():
            for epoch in range(start, recipe.epochs):
                run.train_epoch(train, epoch, steps, progress)
                run.check(train, epoch, tolerant)
                if best_on_test:
                    run.keep_best(predict(heads, test, recipe, run.diverged)[0], test, epoch)
                if checkpoint:
                    checkpoint.save(run.tensors(), epoch + 1, last=epoch + 1 == recipe.epochs)
            last, loss = predict(heads, test, recipe, run.diverged)
    finally:
        progress.stop()
    return run.finished(last, loss, start)


class _Run:
    """The state of a run: the tensors of `tensors`, changed in place."""

    def __init__(
        self,
        heads: Heads,
        candidates: Sequence[Candidate],
        recipe: AttentiveRecipe,
        n_monitored: int | None,
    ) -> None:
        H, device = len(candidates), heads.parameters["query"].device
        self.heads = heads
        self.candidates = candidates
        self.recipe = recipe
        self.momenta = {name: torch.zeros_like(p) for name, p in heads.parameters.items()}
        self.loss = torch.full((recipe.epochs, H), math.nan)
        self.accuracy = torch.full((recipe.epochs, H), math.nan)
        self.test_accuracy = torch.full((recipe.epochs, H), math.nan)
        self.diverged = torch.zeros(H, dtype=torch.int64)
        self.best: dict[str, Tensor] = {}
        if n_monitored is not None:
            self.best = {name: t.detach().clone() for name, t in heads.tensors().items()}
            self.best_epoch = torch.zeros(H, dtype=torch.int64)
            self.best_predicted = torch.zeros(H, n_monitored, dtype=torch.int64, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a run needs to resume."""
        named = {**self.heads.tensors(), "loss": self.loss, "accuracy": self.accuracy}
        named["diverged"] = self.diverged
        named |= {f"momentum.{name}": buffer for name, buffer in self.momenta.items()}
        if self.best:
            named |= {f"best.{name}": tensor for name, tensor in self.best.items()}
            named |= {"best_epoch": self.best_epoch, "best_predicted": self.best_predicted}
            named["test_accuracy"] = self.test_accuracy
        return named

    def train_epoch(self, train: Tokens, epoch: int, steps: int, progress: Progress) -> None:
        recipe, device = self.recipe, train.targets.device
        loss = torch.zeros(len(self.candidates), device=device)  # (H,), summed over rows
        hits = torch.zeros_like(loss)
        batches = train.batches(recipe.batch, recipe.order.buffers(len(train), epoch))
        for step, batch in enumerate(batches):
            rates = [recipe.rate(c.lr, epoch, step, steps) for c in self.candidates]
            losses, right = self._step(batch, train.targets, torch.tensor(rates, device=device))
            loss, hits = loss + losses, hits + right
            progress.advance(1)
        self.loss[epoch] = (loss / len(train)).cpu()
        self.accuracy[epoch] = (hits / len(train)).cpu()

    def _step(self, batch: Batch, targets: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of SGD and return the summed loss and hits of each head (H,)."""
        recipe, parameters = self.recipe, self.heads.parameters
        y = targets[torch.from_numpy(batch.positions).to(targets.device)]
        logits = self.heads.train_logits(batch.cls, batch.patch, recipe.bn_momentum)  # (H, B, C)
        losses = _cross_entropy(logits, y)  # (H,)
        gradients = torch.autograd.grad(losses.sum() / len(y), list(parameters.values()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                if recipe.weight_decay:
                    gradient = gradient + recipe.weight_decay * parameter
                lr = rates.view(-1, *[1] * (parameter.ndim - 1))  # (H, 1, …)
                sgd_step(parameter, gradient, self.momenta[name], recipe.momentum, lr)
            return losses.detach(), (logits.argmax(2) == y).sum(1)

    def check(self, train: Tokens, epoch: int, tolerant: bool) -> None:
        """Mark the heads that are no longer finite. Raise unless `tolerant` and one is left."""
        finite = self.loss[epoch].isfinite()
        for parameter in self.heads.parameters.values():
            finite &= parameter.detach().flatten(1).isfinite().all(1).cpu()
        lost = ~finite & (self.diverged == 0)
        if not lost.any():
            return
        if not self.diverged.any():
            train.check_finite()
        self.diverged[lost] = epoch + 1
        if tolerant and not self.diverged.all():
            return
        rates = [self.candidates[index].lr for index in torch.nonzero(lost).flatten()]
        raise divergence(rates, f"epoch {epoch + 1} of {self.recipe.epochs}")

    def keep_best(self, predicted: Tensor, test: Tokens, epoch: int) -> None:
        """Keep the heads that score better on the test rows than in any earlier epoch."""
        score = (predicted == test.targets).sum(1).cpu() / len(test)  # (H,)
        before = self.test_accuracy[:epoch].nan_to_num(-1.0)
        better = score > before.max(0).values if epoch else torch.ones_like(score, dtype=torch.bool)
        self.test_accuracy[epoch] = score
        self.best_epoch[better] = epoch + 1
        on_device = better.to(predicted.device)
        self.best_predicted[on_device] = predicted[on_device]
        for name, tensor in self.heads.tensors().items():
            self.best[name][on_device] = tensor.detach()[on_device]

    def finished(self, last: Tensor, loss: Tensor, resumed: int) -> Trained:
        heads, H = self.heads, len(self.candidates)
        predicted, epoch = last.cpu(), torch.full((H,), self.recipe.epochs)
        if self.best:
            heads = Heads(
                {name: self.best[name] for name in heads.parameters},
                {name: self.best[name] for name in heads.statistics},
                heads.geometry,
            )
            predicted, epoch = self.best_predicted.cpu(), self.best_epoch
        return Trained(
            heads=heads,
            epoch=epoch,
            predicted=predicted,
            last_predicted=last.cpu(),
            test_loss=loss.cpu(),
            loss=self.loss,
            accuracy=self.accuracy,
            test_accuracy=self.test_accuracy,
            diverged=self.diverged,
            resumed=resumed,
        )


@torch.no_grad()
def predict(
    heads: Heads, tokens: Tokens, recipe: AttentiveRecipe, diverged: Tensor
) -> tuple[Tensor, Tensor]:
    """Return class indices (H, n) and mean loss (H,) of rows, in the recipe's evaluation batches.

    Raise `VerificationError` for rows whose tokens are not finite.
    """
    alive = (diverged == 0).to(tokens.targets.device)  # (H,)
    predicted, total = [], torch.zeros(len(diverged), device=tokens.targets.device)
    for batch in tokens.batches(recipe.eval_batch):
        logits = heads.logits(batch.cls, batch.patch, by_batch=recipe.bn_eval == "batch")
        if not logits[alive].isfinite().all() and len(wrong := bad_rows(batch, tokens.side)):
            raise non_finite(tokens.side.store.title, wrong)
        y = tokens.targets[torch.from_numpy(batch.positions).to(tokens.targets.device)]
        total += _cross_entropy(logits, y)
        predicted.append(logits.argmax(2))
    return torch.cat(predicted, dim=1), total / len(tokens)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss summed over rows, (H,), of class scores (H, B, C) and targets (B,)."""
    H, B, C = logits.shape
    losses = F.cross_entropy(logits.reshape(H * B, C), targets.repeat(H), reduction="none")
    return losses.view(H, B).sum(1)
