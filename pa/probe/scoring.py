"""Score classifiers on the test rows of a split.

Shapes: S classifiers, n test rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def score_epochs(
        self, predicted: Sequence[Ints], last_predicted: Sequence[Ints] | None
    ) -> dict[str, Scores]:
        """Return the named scores of the reported epoch and, if another one, of the last epoch."""
        scores = {"accuracy": self.score(predicted)}
        if last_predicted is not None:
            scores["accuracy_last_epoch"] = self.score(last_predicted)
        return scores

    def confusion(self, predicted: Sequence[Ints]) -> Ints:
        """Count true class (row) by predicted class, (C, C), summed over the S predictions."""
        C = len(self.classes)
        counts: Ints = np.sum([confusion_matrix(p, self.targets, C) for p in predicted], axis=0)
        return counts

    def per_class(self, confusion: Ints) -> list[dict[str, Any]]:
        """Return name, number of test rows and accuracy of each class, from a confusion (C, C)."""
        sizes = np.bincount(self.targets, minlength=len(self.classes))  # (C,)
        return [
            # JSON has no NaN: a class without test rows has no accuracy.
            {"class": name, "n": int(n), "accuracy": float(accuracy) if n else None}
            for name, n, accuracy in zip(
                self.classes, sizes, per_class_accuracy(confusion), strict=True
            )
        ]
