"""What a linear probe writes into its result: what determined it, and what came out in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.evaluate.classification import per_class_accuracy
from pa.probe.linear.choice import Choice
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.references import Reference
from pa.probe.linear.sweep import Grid, TrainedHead
from pa.probe.selection import Split

CONFUSION_CLASSES = 50  # a larger matrix is not written into the JSON


def protocol_json(
    recipe: LinearRecipe, seeds: int, grid: Grid | None, choice: Choice | None
) -> dict[str, Any]:
    """Everything that determines the heads but the rows and the representation."""
    sweep = None
    if grid is not None and choice is not None:
        sweep = {
            "by": choice.validation.rule,
            "store": choice.validation.score.store.fingerprint,
            "fraction": choice.validation.fraction,
            "representation": grid.representation,
            "lr": grid.lr,
            "weight_decay": grid.weight_decay,
        }
    return {**recipe.to_json(), "seeds": seeds, "sweep": sweep}


def details(
    runs: Sequence[TrainedHead],
    split: Split,
    confusion: npt.NDArray[np.int64],
    choice: Choice | None,
    references: Mapping[str, Reference],
) -> dict[str, Any]:
    """Each head's course, the accuracy of each class, the confusion matrix (C, C) summed over the
    seeds, every candidate's validation score, and how the references were chosen."""
    return {
        "runs": [_course(run) for run in runs],
        "per_class": _per_class(split, confusion),
        "confusion": confusion.tolist() if len(confusion) <= CONFUSION_CLASSES else None,
        "chosen": _chosen(choice),
        "references": {name: one.to_json() for name, one in references.items()},
    }


def _course(run: TrainedHead) -> dict[str, Any]:
    return {
        "seed": run.candidate.seed,
        "epoch": run.epoch,
        "train_loss": round(float(run.train_loss[-1]), 6),
        "train_accuracy": round(float(run.train_accuracy[-1]), 6),
    }


def _per_class(split: Split, confusion: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    sizes = np.bincount(split.test.targets, minlength=len(split.classes))
    by_class = zip(split.classes, sizes, per_class_accuracy(confusion), strict=True)
    return [
        # JSON has no NaN: a class without test rows has no accuracy.
        {"class": name, "n": int(n), "accuracy": float(share) if n else None}
        for name, n, share in by_class
    ]


def _chosen(choice: Choice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {
        "representation": choice.representation,
        "lr": choice.lr,
        "weight_decay": choice.weight_decay,
        "by": choice.validation.to_json(),
        "candidates": choice.settings().to_dicts(),
    }
