"""Many linear heads in one pass: learning rates × weight decays × representations × seeds.

Heads of one representation and one seed see the same features in the same order, and are one matrix
(`pa.probe.linear.sgd`). Each pair of representation and seed is a group of its own, because the
features or the order of rows differ. Every head ends where it would alone.

Shapes: N training rows, n test rows, D width, C classes, H heads of a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.errors import UsageError
from pa.evaluate.devices import torch_device
from pa.probe.linear.head import BatchNorm
from pa.probe.linear.monitor import LOGITS, Data, Monitor
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.sgd import Heads, Norm, fit, initial_weight
from pa.probe.optim import divergence
from pa.probe.recipes import BEST_ON_TEST, LAST
from pa.probe.selection import LabelledRows, check_features
from pa.progress import Progress, Silent

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

Read = Callable[[str], tuple[LabelledRows, LabelledRows]]  # representation → training, test rows


@dataclass(frozen=True)
class Candidate:
    """One head of a sweep; `lr` is a value of the recipe's field."""

    representation: str
    lr: float
    weight_decay: float
    seed: int


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

    @property
    def n_settings(self) -> int:
        """Number of candidates of one seed."""
        return len(self.representation) * len(self.lr) * len(self.weight_decay)


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A trained head and its history."""

    candidate: Candidate
    weight: Floats  # (C, D)
    bias: Floats  # (C,)
    norm: BatchNorm | None  # before the head
    predicted: Ints  # (n,) class indices of the test rows at `epoch`
    last_predicted: Ints  # (n,) of the last epoch
    test_loss: float  # mean over the test rows, at `epoch`
    epoch: int  # reported, counted from 1
    train_loss: Floats  # (epochs,)
    train_accuracy: Floats  # (epochs,)
    test_accuracy: Floats | None  # (epochs,), None unless monitored
    diverged: int | None  # epoch, from 1, in which the head ceased to be finite

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.candidate.seed,
            "epoch": self.epoch,
            "train_loss": round(float(self.train_loss[-1]), 6),
            "train_accuracy": round(float(self.train_accuracy[-1]), 6),
        }


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
    are scored after every epoch, else after the last. A head that diverges is marked and leaves the
    others unchanged. Equal inputs give equal bits on the CPU; no global generator is seeded.

    Raise `VerificationError` for features that are not finite, `MismatchError` for sides of
    different width, `UsageError` for a test target beyond the training classes.
    """
    if recipe.reported == BEST_ON_TEST and not monitored:
        recipe = replace(recipe, reported=LAST)
    target_device, progress = torch.device(torch_device(device)), progress or Silent()
    heads: list[TrainedHead] = []
    n_groups = len({(c.representation, c.seed) for c in candidates})
    progress.start(title, recipe.epochs * n_groups, "epochs")
    try:
        for representation, members in groupby(candidates, key=lambda c: c.representation):
            data = _data(*read(representation), target_device)
            # A stack's logits fit into memory: for few classes it is the whole group.
            size = max(1, LOGITS // (min(recipe.batch, len(data.train)) * data.n_classes))
            for seed, members_of_seed in groupby(list(members), key=lambda c: c.seed):
                group, seeded = list(members_of_seed), replace(recipe, seed=seed)
                for start in range(0, len(group), size):
                    stack = group[start : start + size]
                    heads += _train(data, stack, seeded, monitored, progress)
    finally:
        progress.stop()
    return heads


def _data(train: LabelledRows, test: LabelledRows, device: torch.device) -> Data:
    n_classes, largest = int(train.targets.max()) + 1, int(test.targets.max())
    check_features(train, test)
    if largest >= n_classes:
        raise UsageError(
            f"a test row has class {largest}, but the training rows have classes 0 to "
            f"{n_classes - 1} only."
        )

    def tensor(features: npt.NDArray[np.generic]) -> Tensor:
        dtype = np.float16 if features.dtype == np.float16 else np.float32
        return torch.from_numpy(np.require(features, dtype, ["C", "W"])).to(device)

    return Data(
        tensor(train.features),
        torch.tensor(train.targets, device=device),
        tensor(test.features),
        torch.tensor(test.targets, device=device),
        n_classes,
    )


def _train(
    data: Data,
    stack: list[Candidate],
    recipe: LinearRecipe,
    monitored: bool,
    progress: Progress,
) -> list[TrainedHead]:
    device, D = data.train.device, data.train.shape[1]
    initial = initial_weight(recipe.seed, D, data.n_classes, recipe.init_std).to(device)
    norm = None
    if recipe.batch_norm:
        norm = Norm(torch.zeros(D, device=device), torch.ones(D, device=device), recipe.bn_eps)
    heads = Heads(
        weight=initial[:, None].repeat(1, len(stack), 1),  # (C, H, D)
        bias=torch.zeros(data.n_classes, len(stack), device=device),
        lr=torch.tensor([recipe.peak(c.lr) for c in stack], device=device),
        weight_decay=torch.tensor([c.weight_decay for c in stack], device=device),
        norm=norm,
    )
    monitor = Monitor(data, heads, recipe)
    after_epoch = monitor if monitored else None
    history = fit(data.train, data.train_targets, heads, recipe, progress, after_epoch)
    if not monitored:
        monitor.accuracy[-1] = monitor.score(recipe.epochs - 1)
    return [
        TrainedHead(
            candidate=candidate,
            weight=monitor.weight[:, index].contiguous().cpu().numpy(),
            bias=monitor.bias[:, index].contiguous().cpu().numpy(),
            norm=monitor.norms[index],
            predicted=monitor.predicted[:, index].cpu().numpy(),
            last_predicted=monitor.last[:, index].cpu().numpy(),
            test_loss=float(monitor.loss[index]),
            epoch=int(monitor.epoch[index]) + 1,
            train_loss=history.loss[:, index].numpy(),
            train_accuracy=history.accuracy[:, index].numpy(),
            test_accuracy=monitor.accuracy[:, index].numpy() if monitored else None,
            diverged=int(history.diverged[index]) + 1 or None,  # -1 + 1 = 0: did not diverge
        )
        for index, candidate in enumerate(stack)
    ]


def finite_heads(heads: Sequence[TrainedHead], recipe: LinearRecipe) -> list[TrainedHead]:
    """Return the heads that did not diverge. Raise `UsageError` unless one is left."""
    finite = [head for head in heads if head.diverged is None]
    if not finite:
        epoch = min(head.diverged or 0 for head in heads)
        rates = [recipe.peak(head.candidate.lr) for head in heads]
        raise divergence(rates, f"epoch {epoch} of {recipe.epochs}")
    return finite
