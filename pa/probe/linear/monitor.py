"""Score the test rows while a stack of heads trains, and keep the heads to report.

Shapes: N training rows, n test rows, B rows of a batch, D width, C classes, H heads of a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pa.probe.linear.head import BatchNorm
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.sgd import Heads
from pa.probe.recipes import BEST_ON_TEST

LOGITS = 1 << 26  # logits in memory at a time, in all heads of a stack: 268 MB
EVAL_ROWS = 8192  # larger batches are not faster
BN_EVAL_BATCH = 256  # rows, as in the released code


@dataclass(frozen=True, eq=False)
class Data:
    """Both sides on the device.

    Features (N, D) and (n, D) are float16 or float32, targets (N,) and (n,) int64.
    """

    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor
    n_classes: int


class Monitor:
    """Call it after an epoch to score the test rows and to keep the heads to report.

    `weight` (C, H, D), `bias` (C, H) and `norms` belong to the kept heads; `predicted` (n, H) and
    `loss` (H,) are their results on the test rows, `last` (n, H) the predictions of the last epoch;
    `accuracy` (epochs, H) is NaN where nothing was scored; `epoch` (H,) counts from 0.
    """

    def __init__(self, data: Data, heads: Heads, recipe: LinearRecipe) -> None:
        H = heads.weight.shape[1]
        self.data, self.heads, self.recipe = data, heads, recipe
        self.accuracy = torch.full((recipe.epochs, H), float("nan"))
        self.epoch = torch.full((H,), -1)
        self.best = torch.full((H,), -1.0)  # below every accuracy
        self.weight, self.bias = heads.weight, heads.bias
        self.predicted = self.last = torch.empty(0)
        self.loss = torch.empty(0)
        self.norms: list[BatchNorm | None] = [None] * H

    def __call__(self, epoch: int) -> None:
        if self.recipe.reported == BEST_ON_TEST:
            self._keep_better(epoch)
        else:
            self.accuracy[epoch] = self.score(epoch)

    def score(self, epoch: int) -> Tensor:
        """Keep the heads of this epoch and return their accuracy (H,)."""
        self.predicted, self.loss = self._evaluate()
        self.last = self.predicted
        self.epoch[:] = epoch
        self.norms = [self._norm()] * len(self.norms)
        return self._accuracy(self.predicted)

    def _keep_better(self, epoch: int) -> None:
        predicted, loss = self._evaluate()
        accuracy = self.accuracy[epoch] = self._accuracy(predicted)
        if epoch == 0:
            self.weight, self.bias = self.heads.weight.clone(), self.heads.bias.clone()
            self.predicted, self.loss = predicted.clone(), loss.clone()
        self.last = predicted
        better = accuracy > self.best  # (H,); of equal epochs the first is kept
        self.best[better], self.epoch[better] = accuracy[better], epoch
        self.loss[better] = loss[better]
        on_device = better.to(predicted.device)
        for kept, current in (
            (self.weight, self.heads.weight),
            (self.bias, self.heads.bias),
            (self.predicted, predicted),
        ):
            kept[:, on_device] = current[:, on_device]  # H is axis 1 of all three
        norm = self._norm()
        self.norms = [norm if new else old for new, old in zip(better, self.norms, strict=True)]

    def _accuracy(self, predicted: Tensor) -> Tensor:
        correct: Tensor = predicted == self.data.test_targets[:, None]  # (n, H)
        return correct.double().mean(0).float().cpu()

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        """Return class indices (n, H) and mean loss (H,) of the test rows."""
        heads, by_batch = self.heads, self.recipe.bn_eval == "batch"
        C, H, _ = heads.weight.shape
        size = BN_EVAL_BATCH if by_batch else max(1, min(EVAL_ROWS, LOGITS // (C * H)))
        predicted, loss = [], torch.zeros(H, device=heads.bias.device)
        sides = (torch.split(side, size) for side in (self.data.test, self.data.test_targets))
        for x, y in zip(*sides, strict=True):
            x = x.float()  # (B, D)
            x = x if heads.norm is None else heads.norm(x, by_batch=by_batch)
            logits = heads.logits(x)  # (B, C, H)
            predicted.append(logits.argmax(1))
            rows = torch.arange(len(y), device=y.device)
            loss += (logits.logsumexp(1) - logits[rows, y]).sum(0)
        return torch.cat(predicted), (loss / len(self.data.test)).cpu()

    def _norm(self) -> BatchNorm | None:
        norm = self.heads.norm
        if norm is None:
            return None
        return BatchNorm(norm.mean.cpu().numpy().copy(), norm.var.cpu().numpy().copy(), norm.eps)
