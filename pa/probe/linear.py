"""`pa probe linear`: a linear classifier on one stored vector per region.

Shapes: N training rows, n test rows, D width, C classes.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.store import Store
from pa.errors import MismatchError, UsageError, VerificationError
from pa.evaluate.classification import (
    Score,
    accuracy,
    chance_level,
    confusion_matrix,
    per_class_accuracy,
)
from pa.evaluate.results import Result, describe_store, write_result
from pa.probe.head import LinearHead
from pa.probe.selection import LabelledRows, Split, SplitOptions, split_rows
from pa.probe.sgd import Heads, Schedule, fit, initial_weight
from pa.progress import Progress, Silent
from pa.registry import Registry

TASK = "probe-linear"
PREDICT_ROWS = 8192  # bounds the logits in memory: 33 MB for a thousand classes


@dataclass(frozen=True)
class LinearRecipe:
    """How a linear head is trained. The defaults are the protocol `paper`.

    Part classification: appendix A.4 of the paper; momentum, weight decay, the schedule, the start
    and the absence of a BatchNorm are those of the released code (`patch_lincls.py`). `lr` is the
    actual rate for this batch: the released command's 0.1 is multiplied there by 1024 / 256. Rows
    fewer than `batch` make one batch; the rate is not scaled. The last epoch is the one reported.
    """

    protocol: str = "paper"
    lr: float = 0.4
    epochs: int = 90
    batch: int = 1024
    momentum: float = 0.9
    weight_decay: float = 0.0
    init_std: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise UsageError(
                f"epochs and batch must be 1 or more, not {self.epochs} and {self.batch}."
            )
        if not (self.lr > 0 and 0 <= self.momentum < 1):
            raise UsageError(
                f"the learning rate must be positive and the momentum at least 0 and below 1, not "
                f"{self.lr} and {self.momentum}."
            )
        if min(self.weight_decay, self.init_std, self.seed) < 0:
            raise UsageError(
                f"weight decay, the spread of the first weights and the seed must not be negative: "
                f"{self.weight_decay}, {self.init_std}, {self.seed}."
            )

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.epochs, self.batch, self.momentum, self.seed)

    def lr_at(self, epoch: int) -> float:
        """Learning rate in an epoch, counted from 0: lr · ½ (1 + cos(π · epoch / epochs))."""
        return self.lr * self.schedule.factor(epoch)

    def to_json(self) -> dict[str, Any]:
        """Every choice, with those that this recipe does not vary, and what left its protocol."""
        named = LINEAR_PROTOCOLS[self.protocol]
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "seed" and getattr(self, field.name) != getattr(named, field.name)
        }
        return {**asdict(self), **_FIXED, "changed": changed}


_FIXED = {
    "optimizer": "sgd",
    "schedule": "cosine per epoch, no warm-up",
    "loss": "cross-entropy",
    "normalisation": "none",
    "precision": "fp32",
    "reported": "last epoch",
}

PAPER = LinearRecipe()
ANY_ROWS = SplitOptions()

LINEAR_PROTOCOLS: Registry[LinearRecipe] = Registry("protocol", {"paper": PAPER})


@dataclass(frozen=True, eq=False)
class LinearRun:
    """A trained head and what it says: `weight` (C, D) and `bias` (C,), float32; `predicted` (n,)
    class indices of the test rows, int64; `train_loss` (epochs,) mean loss over each epoch."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    predicted: npt.NDArray[np.int64]
    train_loss: npt.NDArray[np.float32]
    train_accuracy: float


@dataclass(frozen=True, eq=False)
class LinearResult:
    """One scored run: the accuracy on the test rows, the confusion matrix (C, C), true class by
    predicted class, the trained head, and the two files that were written."""

    score: Score
    confusion: npt.NDArray[np.int64]
    run: LinearRun
    split: Split
    head: LinearHead
    result: Result
    result_path: Path
    head_path: Path


def run_linear(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    representation: str = "cls",
    options: SplitOptions = ANY_ROWS,
    recipe: LinearRecipe = PAPER,
    device: str = "cpu",
    progress: Progress | None = None,
) -> LinearResult:
    """Train a head on stored features, score it, and write result and head below `results`.

    `test` is the store of the test split; without it, `options` says which rows of `train` are
    tested. The same call replaces its own two files. Raises what `split_rows`, `Store.shape` and
    `train_linear` raise, and `StorageError`.
    """
    protocol = recipe.to_json()  # an unknown protocol fails before the work, not after it
    started = time.perf_counter()
    split = split_rows(train, test, options)
    train_rows, test_rows = split.train.read(representation), split.test.read(representation)
    read = time.perf_counter()
    run = train_linear(train_rows, test_rows, recipe, device=device, progress=progress)
    trained = time.perf_counter()
    score, confusion = _score(run, split)
    seconds = {
        "read": read - started,
        "train": trained - read,
        "score": time.perf_counter() - trained,
    }
    head = LinearHead(run.weight, run.bias, split.classes, representation, train.fingerprint)
    result = Result(
        task=TASK,
        protocol=protocol,
        stores={"train": describe_store(train), "test": describe_store(split.test.store)},
        representation=representation,
        selection=split.to_json(),
        counts=split.counts(),
        scores={"accuracy": score.to_json()},
        seconds=seconds,
        details={"device": device, **_details(run, split.classes, confusion)},
    )
    head_path = result.path(results).with_suffix(".safetensors")
    head.save(head_path)  # first: where the result is, its head is too
    path = write_result(results, result)
    return LinearResult(score, confusion, run, split, head, result, path, head_path)


def train_linear(
    train: LabelledRows,
    test: LabelledRows,
    recipe: LinearRecipe = PAPER,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> LinearRun:
    """Train one linear head and predict the test rows.

    The classes are those of the training targets, 0 to their largest. Equal inputs give equal bits
    on the CPU; nothing global is seeded. `progress` advances by epochs. Raises
    `VerificationError` for features that are not finite, `MismatchError` for sides of different
    width, `UsageError` for divergence and for test targets beyond the training classes.
    """
    _check(train, test)
    place = _device(device)
    features, targets = _tensor(train.features, place), torch.tensor(train.targets, device=place)
    n_classes = int(targets.max()) + 1
    weight = initial_weight(recipe.seed, features.shape[1], n_classes, recipe.init_std)
    heads = Heads(
        weight=weight.T[:, None].contiguous().to(place),  # (D, 1, C)
        bias=torch.zeros(1, n_classes, device=place),
        lr=torch.tensor([recipe.lr], device=place),
        weight_decay=torch.tensor([recipe.weight_decay], device=place),
    )
    progress = progress or Silent()
    progress.start("training a linear head", recipe.epochs, "epochs")
    try:
        losses = fit(features, targets, heads, recipe.schedule, progress)
    finally:
        progress.stop()
    predicted = _predict(_tensor(test.features, place), heads)
    right = _predict(features, heads) == targets
    return LinearRun(
        weight=heads.weight[:, 0].T.contiguous().cpu().numpy(),
        bias=heads.bias[0].cpu().numpy(),
        predicted=predicted.cpu().numpy(),
        train_loss=losses[:, 0].numpy(),
        train_accuracy=right.double().mean().item(),
    )


def _predict(features: Tensor, heads: Heads) -> Tensor:
    """Class indices (n,) that the first head gives."""
    blocks = torch.split(features, PREDICT_ROWS)
    return torch.cat([(x @ heads.weight[:, 0] + heads.bias[0]).argmax(1) for x in blocks])


def _score(run: LinearRun, split: Split) -> tuple[Score, npt.NDArray[np.int64]]:
    test, n_classes = split.test, len(split.classes)
    chance = chance_level(split.train.targets, test.targets, n_classes)
    score = accuracy(run.predicted, test.targets, test.images, chance)
    return score, confusion_matrix(run.predicted, test.targets, n_classes)


def _details(
    run: LinearRun, classes: tuple[str, ...], confusion: npt.NDArray[np.int64]
) -> dict[str, Any]:
    by_class = zip(classes, confusion.sum(axis=1), per_class_accuracy(confusion), strict=True)
    return {
        "train_accuracy": run.train_accuracy,
        "train_loss": [round(float(loss), 6) for loss in run.train_loss],
        "per_class": [
            # JSON has no NaN: a class without test rows has no accuracy.
            {"class": name, "n": int(n), "accuracy": float(share) if n else None}
            for name, n, share in by_class
        ],
    }


def _check(train: LabelledRows, test: LabelledRows) -> None:
    widths = train.features.shape[1], test.features.shape[1]
    if widths[0] != widths[1]:
        raise MismatchError(f"training features have width {widths[0]}, test features {widths[1]}.")
    n_classes, largest = int(train.targets.max()) + 1, int(test.targets.max())
    if largest >= n_classes:
        raise UsageError(
            f"a test row has class {largest}, but the training rows have classes 0 to "
            f"{n_classes - 1} only."
        )
    for side, rows in (("training", train), ("test", test)):
        # NaN passes through both; a mask of all values would be a quarter of the features' size.
        finite = np.isfinite(rows.features.min(1)) & np.isfinite(rows.features.max(1))
        if not finite.all():
            wrong = rows.rows[~finite]
            shown = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
            raise VerificationError(
                f"{len(wrong)} {side} rows hold NaN or infinity: rows {shown}. A store never keeps "
                f"such values, so its bytes were damaged: check it with `pa verify`."
            )


def _tensor(features: npt.NDArray[np.float32], device: torch.device) -> Tensor:
    return torch.from_numpy(np.require(features, np.float32, ["C", "W"])).to(device)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"no device {name!r}: torch finds no GPU. Use --device cpu.")
    return device
