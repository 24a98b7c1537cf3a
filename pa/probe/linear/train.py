"""Many linear heads in one pass: learning rates × weight decays × representations × seeds.

Heads of one representation and one seed see the same features in the same order, and are one matrix
(`pa.probe.linear.stack`). Each pair of representation and seed is a group of its own, because the
features or the order of rows differ. Every head ends where it would alone.

Shapes: N training rows, n test rows, B rows of a batch, D width, C classes, H heads of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pa.errors import UsageError
from pa.evaluate.devices import torch_device
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.stack import LinearStack, Norm, fit, initial_weight
from pa.probe.optim import divergence
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.selection import LabelledRows, check_features
from pa.probe.training import BestEpoch, Candidate, TrainedHead, accuracies
from pa.progress import Progress, Silent

LOGITS = 1 << 26  # logits in memory at a time, in all heads of a stack: 268 MB
EVAL_ROWS = 8192  # larger batches are not faster
BN_EVAL_BATCH = 256  # rows, as in the released code

Read = Callable[[str], tuple[LabelledRows, LabelledRows]]  # representation → training, test rows


@dataclass(frozen=True)
class Grid:
    """The values of a sweep; every combination is trained."""

    representation: tuple[str, ...]
    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in ("representation", "lr", "weight_decay", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UsageError(
                    f"a sweep needs one or more different values of {name}, not {list(values)}."
                )

    def candidates(self) -> list[Candidate]:
        """Return all candidates; those of one representation and seed are consecutive."""
        return [
            Candidate(representation, lr, decay, seed)
            for representation, seed, lr, decay in product(
                self.representation, self.seeds, self.lr, self.weight_decay
            )
        ]


def train_stack(
    read: Read,
    candidates: Sequence[Candidate],
    recipe: LinearRecipe,
    *,
    monitored: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
    title: str = "training linear heads",
) -> list[TrainedHead]:
    """Train all candidates by a recipe, whose rate, weight decay and seed they replace.

    Candidates of one representation must be consecutive: `read` is called once for each
    representation, so that the features of only one are in memory. With `monitored`, the test rows
    are scored after every epoch, else after the last, which is then the reported one. A head that
    diverges is marked and leaves the others unchanged. Equal inputs give equal bits on the CPU; no
    global generator is seeded.

    Raise `VerificationError` for features that are not finite, `MismatchError` for sides of
    different width, `UsageError` for a test target beyond the training classes.
    """
    target_device, progress = torch.device(torch_device(device)), progress or Silent()
    heads: list[TrainedHead] = []
    n_groups = len({(c.representation, c.seed) for c in candidates})
    progress.start(title, recipe.epochs * n_groups, "epochs")
    try:
        for representation, members in groupby(candidates, key=lambda c: c.representation):
            sides = _read_sides(read, representation, target_device)
            n_rows, n_classes = len(sides[0].x), int(sides[0].y.max()) + 1
            # As many heads at a time as have logits that fit into memory: for few classes all.
            size = max(1, LOGITS // (min(recipe.batch, n_rows) * n_classes))
            for seed, members_of_seed in groupby(list(members), key=lambda c: c.seed):
                group, seeded = list(members_of_seed), replace(recipe, seed=seed)
                for start in range(0, len(group), size):
                    stack = group[start : start + size]
                    heads += _train(sides, stack, seeded, monitored, progress)
    finally:
        progress.stop()
    return heads


class _Side(NamedTuple):
    """The rows of one side on the device."""

    x: Tensor  # (N, D), float16 or float32
    y: Tensor  # (N,), int64

    @classmethod
    def of(cls, rows: LabelledRows, device: torch.device) -> _Side:
        dtype = np.float16 if rows.features.dtype == np.float16 else np.float32
        features = torch.from_numpy(np.require(rows.features, dtype, ["C", "W"]))
        return cls(features.to(device), torch.tensor(rows.targets, device=device))


def _read_sides(read: Read, representation: str, device: torch.device) -> tuple[_Side, _Side]:
    """Read and check the training and the test rows."""
    train, test = read(representation)
    n_classes, largest = int(train.targets.max()) + 1, int(test.targets.max())
    check_features(train, test)
    if largest >= n_classes:
        raise UsageError(
            f"a test row has class {largest}, but the training rows have classes 0 to "
            f"{n_classes - 1} only."
        )
    return _Side.of(train, device), _Side.of(test, device)


def _train(
    sides: tuple[_Side, _Side],
    candidates: list[Candidate],
    recipe: LinearRecipe,
    monitored: bool,
    progress: Progress,
) -> list[TrainedHead]:
    """Train the heads of one stack."""
    (train, test), H, epochs = sides, len(candidates), recipe.epochs
    device, D, n_classes = train.x.device, train.x.shape[1], int(train.y.max()) + 1
    initial = initial_weight(recipe.seed, D, n_classes, recipe.init_std).to(device)  # (C, D)
    norm = None
    if recipe.batch_norm:
        norm = Norm(torch.zeros(D, device=device), torch.ones(D, device=device), recipe.bn_eps)
    stack = LinearStack(
        weight=initial[:, None].repeat(1, H, 1),  # (C, H, D)
        bias=torch.zeros(n_classes, H, device=device),
        lr=torch.tensor([recipe.peak(c.lr) for c in candidates], device=device),
        weight_decay=torch.tensor([c.weight_decay for c in candidates], device=device),
        norm=norm,
    )
    # All heads of a stack start from the same weights: their seed is the same.
    last = torch.zeros(len(test.x), H, dtype=torch.int64, device=device)  # (n, H)
    loss, accuracy = torch.empty(H), torch.full((epochs, H), math.nan)
    is_best_reported = monitored and recipe.reported == BEST_ON_TEST
    best = (
        BestEpoch(epochs, {**stack.tensors(), "predicted": last}, 1) if is_best_reported else None
    )

    def after_epoch(epoch: int) -> None:
        nonlocal last, loss
        if not monitored and epoch + 1 < epochs:
            return
        last, loss = _evaluate(stack, test, recipe)
        accuracy[epoch] = accuracies(last, test.y, 0)
        if best is not None:
            best.keep(epoch, accuracy[epoch], {**stack.tensors(), "predicted": last})

    history = fit(train.x, train.y, stack, recipe, progress, after_epoch)
    kept, reported = {**stack.tensors(), "predicted": last}, torch.full((H,), epochs)
    if best is not None:
        kept, reported = best.tensors, best.epoch
    if not monitored:
        accuracy[:] = math.nan
    return [
        TrainedHead(
            candidate=candidate,
            tensors={
                name: tensor[:, index].contiguous().cpu()
                for name, tensor in kept.items()
                if name != "predicted"
            },
            epoch=int(reported[index]),
            predicted=kept["predicted"][:, index].cpu().numpy(),
            last_predicted=last[:, index].cpu().numpy(),
            test_loss=float(loss[index]),
            train_loss=history.loss[:, index].numpy(),
            train_accuracy=history.accuracy[:, index].numpy(),
            test_accuracy=accuracy[:, index].numpy(),
            diverged=int(history.diverged[index]) or None,
        )
        for index, candidate in enumerate(candidates)
    ]


def _evaluate(stack: LinearStack, test: _Side, recipe: LinearRecipe) -> tuple[Tensor, Tensor]:
    """Return class indices (n, H) and mean loss (H,) of the test rows."""
    by_batch = recipe.bn_eval == "batch"
    C, H, _ = stack.weight.shape
    size = BN_EVAL_BATCH if by_batch else max(1, min(EVAL_ROWS, LOGITS // (C * H)))
    predicted, loss = [], torch.zeros(H, device=stack.bias.device)
    for x, y in zip(torch.split(test.x, size), torch.split(test.y, size), strict=True):
        x = x.float()  # (B, D)
        x = x if stack.norm is None else stack.norm(x, by_batch=by_batch)
        logits = stack.logits(x)  # (B, C, H)
        predicted.append(logits.argmax(1))
        rows = torch.arange(len(y), device=y.device)
        loss += (logits.logsumexp(1) - logits[rows, y]).sum(0)
    return torch.cat(predicted), (loss / len(test.x)).cpu()


def finite_heads(heads: Sequence[TrainedHead], recipe: LinearRecipe) -> list[TrainedHead]:
    """Return the heads that did not diverge. Raise `UsageError` unless one is left."""
    finite = [head for head in heads if head.diverged is None]
    if not finite:
        epoch = min(head.diverged or 0 for head in heads)
        rates = [recipe.peak(head.candidate.lr) for head in heads]
        raise divergence(rates, f"epoch {epoch} of {recipe.epochs}")
    return finite
