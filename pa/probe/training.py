"""What a training of several heads starts from and returns, and how the best epoch is kept.

Shapes: H heads, E epochs, N training rows, n test rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """One head to train: the representation that it reads, and fields of the recipe."""

    representation: str
    lr: float
    weight_decay: float
    seed: int


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A trained head and its history."""

    candidate: Candidate
    tensors: dict[str, Tensor]  # of the reported epoch, by the names of a head file; on the CPU
    epoch: int  # reported, counted from 1
    predicted: Ints  # (n,) class indices of the test rows at `epoch`
    last_predicted: Ints  # (n,) of the last epoch
    test_loss: float  # mean over the test rows after the last epoch
    train_loss: Floats  # (E,) mean over the training rows while an epoch trains
    train_accuracy: Floats  # (E,) likewise
    test_accuracy: Floats  # (E,) after each epoch; NaN where the test rows were not scored
    diverged: int | None = None  # epoch, from 1, in which the head ceased to be finite
    resumed: int = 0  # epochs done by an earlier run

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.candidate.seed,
            "epoch": self.epoch,
            "train_loss": round(float(self.train_loss[-1]), 6),
            "train_accuracy": round(float(self.train_accuracy[-1]), 6),
        }


class BestEpoch:
    """For each of H heads, its tensors in the epoch with the best accuracy on the test rows.

    Of epochs with equal accuracy the first is kept. `accuracy` is (E, H), NaN for epochs to come;
    `epoch` (H,) counts from 1; the axis `axis` of every tensor is H.
    """

    def __init__(self, n_epochs: int, tensors: Mapping[str, Tensor], axis: int) -> None:
        H = next(iter(tensors.values())).shape[axis]
        self.axis = axis
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.accuracy = torch.full((n_epochs, H), math.nan)
        self.epoch = torch.zeros(H, dtype=torch.int64)

    def keep(self, epoch: int, accuracy: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Keep the heads whose accuracy (H,) is better than in every earlier epoch, from 0."""
        before = torch.full_like(accuracy, -1.0)  # below every accuracy
        if epoch:
            before = self.accuracy[:epoch].max(0).values  # (H,)
        better = accuracy > before  # (H,)
        self.accuracy[epoch] = accuracy
        self.epoch[better] = epoch + 1
        # Heads are independent: each keeps the tensors of its own best epoch.
        for name, kept in self.tensors.items():
            on_device = better.to(kept.device)
            current = tensors[name].detach().movedim(self.axis, 0)  # (H, …)
            kept.movedim(self.axis, 0)[on_device] = current[on_device]


def accuracies(predicted: Tensor, targets: Tensor, axis: int) -> Tensor:
    """Return the accuracy (H,), on the CPU, of class indices with rows on `axis`."""
    # Integers are exact: the same bits on every device.
    correct = (predicted == targets.unsqueeze(1 - axis)).sum(axis)  # (H,)
    return correct.cpu() / len(targets)


def learning_curves(heads: Sequence[TrainedHead]) -> pl.DataFrame:
    """Return a row for each head and epoch: training metrics are means over the epoch's rows."""
    frames = []
    for head in heads:
        n_epochs = len(head.train_loss)
        candidate = {name: [value] * n_epochs for name, value in asdict(head.candidate).items()}
        frames.append(
            pl.DataFrame(
                {
                    **candidate,
                    "epoch": np.arange(1, n_epochs + 1),
                    "train_loss": head.train_loss,
                    "train_accuracy": head.train_accuracy,
                    "test_accuracy": head.test_accuracy,
                }
            )
        )
    return pl.concat(frames)
