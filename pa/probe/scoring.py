"""Scores of classifiers on the test rows of a split.

Shapes: S classifiers, n test rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pa.evaluate.classification import Scores, accuracies, chance_level, confusion_matrix
from pa.probe.selection import Split

Ints = npt.NDArray[np.int64]


class ClassificationScorer:
    """What predictions are held against: the test rows' classes and images, and chance."""

    def __init__(self, split: Split) -> None:
        self.targets, self.images = split.test.targets, split.test.images
        self.n_classes = len(split.classes)
        self.chance = chance_level(split.train.targets, self.targets, self.n_classes)

    def score(self, predicted: Sequence[Ints], *, of_draws: bool = False) -> Scores:
        """Accuracy of S predictions of the class indices (n,): their mean, and each.

        `of_draws`: the S classifiers were trained on random draws of the training rows.
        """
        return accuracies(
            np.stack(predicted), self.targets, self.images, self.chance, of_draws=of_draws
        )

    def confusion(self, predicted: Sequence[Ints]) -> Ints:
        """True class by predicted class, (C, C), summed over the S predictions."""
        counts = np.zeros((self.n_classes, self.n_classes), dtype=np.int64)
        for one in predicted:
            counts += confusion_matrix(one, self.targets, self.n_classes)
        return counts
