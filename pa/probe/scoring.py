"""Score classifiers on the test rows of a split.

Shapes: S classifiers, n test rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.evaluate.classification import (
    Scores,
    accuracies,
    chance_level,
    confusion_matrix,
    per_class_accuracy,
)
from pa.probe.selection import Split

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Results of S classifiers on the test rows."""

    scores: dict[str, Scores]  # accuracy and, if another epoch is reported, accuracy_last_epoch
    confusion: Ints  # (C, C), true class (row) by predicted class, summed over the classifiers
    per_class: list[dict[str, Any]]  # name, number of test rows and accuracy


class ClassificationScorer:
    """Compare predictions with the classes of the test rows, and with chance."""

    def __init__(self, split: Split) -> None:
        self.classes = split.classes
        self.targets, self.images = split.test.targets, split.test.images  # (n,), (n,)
        self.chance = chance_level(split.train.targets, self.targets, len(self.classes))

    def score(self, predicted: Sequence[Ints], *, of_draws: bool = False) -> Scores:
        """Return the accuracy of S predictions of the class indices (n,): their mean, and each.

        `of_draws`: the S classifiers were trained on random draws of the training rows.
        """
        return accuracies(
            np.stack(predicted), self.targets, self.images, self.chance, of_draws=of_draws
        )

    def report(
        self, predicted: Sequence[Ints], last_predicted: Sequence[Ints] | None
    ) -> ClassificationReport:
        """Score S predictions and, if another epoch is reported, those of the last epoch."""
        scores = {"accuracy": self.score(predicted)}
        if last_predicted is not None:
            scores["accuracy_last_epoch"] = self.score(last_predicted)
        C = len(self.classes)
        confusion: Ints = np.sum([confusion_matrix(p, self.targets, C) for p in predicted], axis=0)
        sizes = np.bincount(self.targets, minlength=C)  # (C,)
        per_class: list[dict[str, Any]] = [
            # JSON has no NaN: a class without test rows has no accuracy.
            {"class": name, "n": int(n), "accuracy": float(accuracy) if n else None}
            for name, n, accuracy in zip(
                self.classes, sizes, per_class_accuracy(confusion), strict=True
            )
        ]
        return ClassificationReport(scores, confusion, per_class)
