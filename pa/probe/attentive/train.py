"""Train attentive heads together: one pass over the tokens serves all of them.

All heads of a run see the same batches in the same order; each has its own first weights and its
own learning rate, and ends where it would alone.

Shapes: H heads, N training rows, n test rows, B rows of a batch, D width, C classes, E epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pa.evaluate.devices import full_precision
from pa.probe.attentive.recipes import AttentiveRecipe
from pa.probe.attentive.stack import AttentiveStack
from pa.probe.attentive.tokens import Batch, Tokens, bad_rows
from pa.probe.checkpoints import Checkpoint
from pa.probe.optim import divergence, sgd_step
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.selection import non_finite
from pa.probe.training import BestEpoch, Candidate, TrainedHead, accuracies
from pa.progress import Progress, Silent


def train_heads(
    train: Tokens,
    test: Tokens,
    candidates: Sequence[Candidate],
    recipe: AttentiveRecipe,
    *,
    choosing: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> list[TrainedHead]:
    """Train one head for each candidate on `train` and predict `test`.

    The classes are 0 to the largest training target. A recipe that reports the best epoch on the
    test rows keeps the head of that epoch. With `choosing`, the last epoch is reported and heads
    may diverge. A `checkpoint` saves the state after each epoch; a run with the same key resumes
    from it, on the CPU to the same bits. Equal inputs give equal bits on the CPU, whether tokens
    are in memory or streamed; no global generator is seeded. `progress` advances by steps.

    Raise `UsageError`, with the learning rate, for divergence of one head, or with `choosing` of
    all; `VerificationError` for tokens that are not finite.
    """
    progress, is_best_reported = progress or Silent(), recipe.reported == BEST_ON_TEST
    run = _Run(train, test, candidates, recipe, with_best=is_best_reported and not choosing)
    start = checkpoint.load(run.tensors()) if checkpoint else 0
    for parameter in run.stack.parameters.values():
        parameter.requires_grad_(True)
    n_heads, title = len(candidates), "training an attentive head"
    if choosing:
        n_rates = len({candidate.lr for candidate in candidates})
        title = f"choosing between {n_rates} learning rates, {n_heads} heads"
    elif n_heads > 1:
        title += f" for {n_heads} seeds"
    # The progress bar of a resumed run begins where the earlier run was ended.
    progress.start(title, recipe.epochs * run.n_steps, "steps", start * run.n_steps)
    if start:
        progress.note(f"resuming after epoch {start} of {recipe.epochs}")
    try:
        with full_precision():
            for epoch in range(start, recipe.epochs):
                run.train_epoch(epoch, progress)
                run.check(epoch, tolerant=choosing)
                if run.best is not None:
                    predicted, _ = run.predict()
                    accuracy = accuracies(predicted, test.targets, 1)  # (H,)
                    run.best.keep(epoch, accuracy, {**run.stack.tensors(), "predicted": predicted})
                if checkpoint:
                    checkpoint.save(run.tensors(), epoch + 1, last=epoch + 1 == recipe.epochs)
            last, loss = run.predict()
    finally:
        progress.stop()
    return run.heads(last, loss, start)


class _Run:
    """The state of a run: the tensors of `tensors`, changed in place."""

    def __init__(
        self,
        train: Tokens,
        test: Tokens,
        candidates: Sequence[Candidate],
        recipe: AttentiveRecipe,
        *,
        with_best: bool,
    ) -> None:
        self.train, self.test, self.candidates, self.recipe = train, test, candidates, recipe
        self.n_steps = -(-len(train) // recipe.batch)  # of an epoch, rounded up
        self.device, H = train.targets.device, len(candidates)
        seeds, n_classes = [c.seed for c in candidates], int(train.targets.max()) + 1
        self.stack = AttentiveStack.new(seeds, train.width, n_classes, recipe, self.device)
        self.momenta = {name: torch.zeros_like(p) for name, p in self.stack.parameters.items()}
        self.loss = torch.full((recipe.epochs, H), math.nan)  # (E, H), a mean of each epoch
        self.accuracy = torch.full((recipe.epochs, H), math.nan)  # (E, H), likewise
        self.diverged = torch.zeros(H, dtype=torch.int64)  # (H,) epoch, from 1, or 0
        self.best: BestEpoch | None = None
        if with_best:
            predicted = torch.zeros(H, len(test), dtype=torch.int64, device=self.device)
            self.best = BestEpoch(
                recipe.epochs, {**self.stack.tensors(), "predicted": predicted}, axis=0
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a run needs to resume."""
        named = {**self.stack.tensors(), "loss": self.loss, "accuracy": self.accuracy}
        named["diverged"] = self.diverged
        named |= {f"momentum.{name}": buffer for name, buffer in self.momenta.items()}
        if self.best is not None:
            named |= {f"best.{name}": tensor for name, tensor in self.best.tensors.items()}
            named |= {"best_epoch": self.best.epoch, "test_accuracy": self.best.accuracy}
        return named

    def train_epoch(self, epoch: int, progress: Progress) -> None:
        recipe, train = self.recipe, self.train
        loss = torch.zeros(len(self.candidates), device=self.device)  # (H,), summed over rows
        hits = torch.zeros_like(loss)  # (H,)
        batches = train.batches(recipe.batch, recipe.order.buffers(len(train), epoch))
        for step, batch in enumerate(batches):
            rates = [recipe.rate(c.lr, epoch, step, self.n_steps) for c in self.candidates]
            losses, right = self._step(batch, torch.tensor(rates, device=self.device))
            loss, hits = loss + losses, hits + right
            progress.advance(1)
        self.loss[epoch] = (loss / len(train)).cpu()
        self.accuracy[epoch] = (hits / len(train)).cpu()

    def _step(self, batch: Batch, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of SGD and return the summed loss and hits of each head (H,)."""
        recipe, parameters = self.recipe, self.stack.parameters
        y = self.train.targets_of(batch)  # (B,)
        logits = self.stack.train_logits(batch.cls, batch.patch, recipe.bn_momentum)  # (H, B, C)
        losses = _cross_entropy(logits, y)  # (H,)
        # Each head depends on its own loss only, so the gradient of the sum separates.
        gradients = torch.autograd.grad(losses.sum() / len(y), list(parameters.values()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                # As torch.optim.SGD: the decay is part of the gradient and enters the momentum.
                if recipe.weight_decay:
                    gradient = gradient + recipe.weight_decay * parameter
                lr = rates.view(-1, *[1] * (parameter.ndim - 1))  # (H, 1, …)
                sgd_step(parameter, gradient, self.momenta[name], recipe.momentum, lr)
            return losses.detach(), (logits.argmax(2) == y).sum(1)

    def check(self, epoch: int, *, tolerant: bool) -> None:
        """Mark the heads that are no longer finite. Raise unless `tolerant` and one is left."""
        finite = self.loss[epoch].isfinite()  # (H,)
        for parameter in self.stack.parameters.values():
            finite &= parameter.detach().flatten(1).isfinite().all(1).cpu()
        lost = ~finite & (self.diverged == 0)  # (H,)
        if not lost.any():
            return
        if not self.diverged.any():
            # Damaged tokens make every loss NaN: report them rather than the rate.
            self.train.check_finite()
        self.diverged[lost] = epoch + 1
        if tolerant and not self.diverged.all():
            return
        rates = [self.candidates[index].lr for index in torch.nonzero(lost).flatten()]
        raise divergence(rates, f"epoch {epoch + 1} of {self.recipe.epochs}")

    @torch.no_grad()
    def predict(self) -> tuple[Tensor, Tensor]:
        """Return class indices (H, n) and mean loss (H,) of the test rows.

        Raise `VerificationError` for rows whose tokens are not finite.
        """
        recipe, tokens = self.recipe, self.test
        alive = (self.diverged == 0).to(self.device)  # (H,)
        predicted, total = [], torch.zeros(len(alive), device=self.device)
        for batch in tokens.batches(recipe.eval_batch):
            logits = self.stack.logits(batch.cls, batch.patch, by_batch=recipe.bn_eval == "batch")
            if not logits[alive].isfinite().all() and len(wrong := bad_rows(batch, tokens.side)):
                raise non_finite(tokens.side.store.title, wrong)
            total += _cross_entropy(logits, tokens.targets_of(batch))
            predicted.append(logits.argmax(2))
        return torch.cat(predicted, dim=1), total / len(tokens)

    def heads(self, last: Tensor, loss: Tensor, resumed: int) -> list[TrainedHead]:
        """Separate the heads; `last` (H, n) and `loss` (H,) are those of the last epoch."""
        tensors, predicted = self.stack.tensors(), last
        test_accuracy, epochs = torch.full_like(self.loss, math.nan), self.recipe.epochs
        if self.best is not None:
            tensors, test_accuracy = dict(self.best.tensors), self.best.accuracy
            predicted = tensors.pop("predicted")
        return [
            TrainedHead(
                candidate=candidate,
                tensors={name: t.detach()[index].cpu().clone() for name, t in tensors.items()},
                epoch=int(self.best.epoch[index]) if self.best else epochs,
                predicted=predicted[index].cpu().numpy(),
                last_predicted=last[index].cpu().numpy(),
                test_loss=float(loss[index]),
                train_loss=self.loss[:, index].numpy(),
                train_accuracy=self.accuracy[:, index].numpy(),
                test_accuracy=test_accuracy[:, index].numpy(),
                diverged=int(self.diverged[index]) or None,
                resumed=resumed,
            )
            for index, candidate in enumerate(self.candidates)
        ]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss summed over rows, (H,), of class scores (H, B, C) and targets (B,)."""
    H, B, C = logits.shape
    losses = F.cross_entropy(logits.reshape(H * B, C), targets.repeat(H), reduction="none")
    return losses.view(H, B).sum(1)
