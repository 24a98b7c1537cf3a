"""Score a probe on the test rows of a split, and write heads, tables and the result.

Shapes: S heads, n test rows, C classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.files import replacing
from pa.evaluate.classification import (
    Scores,
    accuracies,
    chance_level,
    confusion_matrix,
    per_class_accuracy,
)
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import (
    RecordedProtocol,
    SplitCounts,
    SplitSelection,
    StoreReference,
    TrainTest,
)
from pa.evaluate.results import ProbeResult
from pa.probe.heads import Head, save_heads
from pa.probe.recipes import BEST_ON_TEST, SgdRecipe
from pa.probe.selection import Split
from pa.probe.training import TrainedHead
from pa.probe.validation import Choice

Ints = npt.NDArray[np.int64]
P = TypeVar("P", bound=ProbeResult)
R = TypeVar("R", bound=SgdRecipe)
H = TypeVar("H", bound=Head)


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

    def score_heads(self, heads: Sequence[TrainedHead], reported: str) -> dict[str, Scores]:
        """Score the reported epochs and, if those are not the last ones, the last epochs."""
        scores = {"accuracy": self.score([head.predicted for head in heads])}
        if reported == BEST_ON_TEST:
            scores["accuracy_last_epoch"] = self.score([head.last_predicted for head in heads])
        return scores

    def confusion(self, heads: Sequence[TrainedHead]) -> Ints:
        """Return true class (row) by predicted class, (C, C), summed over the heads."""
        C = len(self.classes)
        matrices = [confusion_matrix(head.predicted, self.targets, C) for head in heads]
        confusion: Ints = np.sum(matrices, axis=0)
        return confusion

    def per_class(self, confusion: Ints) -> list[dict[str, Any]]:
        """Return name, number of test rows and accuracy of every class."""
        sizes = np.bincount(self.targets, minlength=len(self.classes))  # (C,)
        # JSON has no NaN: a class without test rows has no accuracy.
        return [
            {"class": name, "n": int(n), "accuracy": float(accuracy) if n else None}
            for name, n, accuracy in zip(
                self.classes, sizes, per_class_accuracy(confusion), strict=True
            )
        ]


@dataclass(frozen=True, eq=False)
class ScoredProbe:
    """Scores by a number, such as k of a k-NN probe, and the result that was written."""

    scores: dict[int, Scores]
    split: Split
    result: ProbeResult
    result_path: Path


@dataclass(frozen=True, eq=False)
class TrainedProbe(Generic[R, H]):
    """A scored run that trained heads; `write` makes its files."""

    folder: Path  # of all results
    result: ProbeResult
    split: Split
    recipe: R  # with the chosen rate and weight decay
    heads: tuple[H, ...]  # of each seed
    runs: Sequence[TrainedHead]  # their history
    confusion: Ints  # (C, C), true by predicted class, summed over the seeds
    choice: Choice | None = None
    references: dict[str, Any] = field(default_factory=dict)  # name → model and scores

    @property
    def scores(self) -> Scores:
        """Scores of all seeds on the test rows."""
        return self.result.scores["accuracy"]

    @property
    def last_epoch(self) -> Scores | None:
        """Scores of the last epoch, if another one is reported."""
        return self.result.scores.get("accuracy_last_epoch")

    @property
    def result_path(self) -> Path:
        return self.result.path(self.folder)

    @property
    def head_path(self) -> Path:
        return self.result_path.with_suffix(".safetensors")

    @property
    def curves_path(self) -> Path:
        return self.result_path.with_suffix(".curves.parquet")

    @property
    def sweep_path(self) -> Path:
        return self.result_path.with_suffix(".sweep.parquet")

    def write(self, curves: pl.DataFrame, sweep: pl.DataFrame | None = None) -> None:
        """Write heads and tables, then the result, so that it never lists missing files.

        Raise `StorageError`.
        """
        save_heads(self.head_path, self.heads)
        _write_table(self.curves_path, curves)
        if sweep is not None:
            _write_table(self.sweep_path, sweep)
        write_result(self.folder, self.result)


def probe_result(
    kind: type[P],
    split: Split,
    representation: str,
    protocol: dict[str, Any],
    scores: dict[str, Scores],
    seconds: dict[str, float],
    details: dict[str, Any],
) -> P:
    """Return the result of a probe on the rows of a split."""
    return kind(
        protocol=RecordedProtocol(protocol),
        stores=TrainTest(StoreReference.of(split.train.store), StoreReference.of(split.test.store)),
        representation=representation,
        selection=SplitSelection(**split.to_json()),
        counts=SplitCounts(**split.counts()),
        scores=scores,
        seconds=seconds,
        details=details,
    )


def trained_heads(
    kind: type[H], runs: Sequence[TrainedHead], split: Split, constants: dict[str, str]
) -> tuple[H, ...]:
    """Return the heads of a run, with the classes and the store they belong to."""
    store = split.train.store
    return tuple(
        kind.of(
            run.tensors,
            constants,
            classes=split.classes,
            representation=run.candidate.representation,
            fingerprint=store.fingerprint,
            store_checksum=store.checksum,
        )
        for run in runs
    )


def _write_table(path: Path, table: pl.DataFrame) -> None:
    # Through memory: polars hides the error of a full disk.
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    with replacing(path) as partial:
        partial.write_bytes(data.getbuffer())
