"""`pa probe knn`: weighted nearest neighbours on stored features, by the protocol of DINO.

Caron et al. 2021, `eval_knn.py`: features of unit length; each of the k nearest training rows votes
for its class with weight exp(cosine / T), T = 0.07. Nothing is trained and nothing is chosen: every
k of the list is reported.

Shapes: N training rows, n test rows, B rows of a block, D width, C classes, K values of k.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.store.reader import Store
from pa.data.store.spec import Difference
from pa.errors import MismatchError, OutOfRangeError, UsageError
from pa.evaluate.classification import Scores, accuracies, chance_level
from pa.evaluate.results import Result, describe_store, write_result
from pa.probe.linear.sweep import check_finite, find_device
from pa.probe.selection import LabelledRows, Split, SplitOptions, split_rows
from pa.progress import Progress, Silent

TASK = "probe-knn"
KS = (10, 20, 100, 200)
TEMPERATURE = 0.07

# Cosines in memory at a time: 1024 × 16,384, 67 MB, however many rows there are.
TEST_BLOCK = 1024
TRAIN_BLOCK = 16384

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KnnResult:
    """Accuracy on the test rows for each k, and the file that was written."""

    scores: dict[int, Scores]
    split: Split
    result: Result
    result_path: Path


def run_knn(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    representation: str = "cls",
    options: SplitOptions | None = None,
    permitted: Sequence[Difference] = (),
    ks: Sequence[int] | None = None,
    temperature: float = TEMPERATURE,
    device: str = "cpu",
    progress: Progress | None = None,
) -> KnnResult:
    """Classify the test rows by their nearest training rows and write the result.

    `ks` None stands for those of `KS` that are at most N. Raises what `split_rows` and
    `nearest_votes` raise, and `StorageError`.
    """
    began = time.perf_counter()
    split = split_rows(train, test, options or SplitOptions(), permitted)
    n_train = len(split.train.rows)
    chosen = tuple(ks) if ks is not None else tuple(k for k in KS if k <= n_train) or (1,)
    rows = split.train.read(representation), split.test.read(representation)
    read = time.perf_counter()
    predicted = nearest_votes(
        *rows, len(split.classes), chosen, temperature, device=device, progress=progress
    )
    chance = chance_level(split.train.targets, split.test.targets, len(split.classes))
    scores = {
        k: accuracies(one[None], split.test.targets, split.test.images, chance)
        for k, one in zip(chosen, predicted, strict=True)
    }
    result = Result(
        task=TASK,
        protocol={
            "protocol": "dino",
            "k": list(chosen),
            "temperature": temperature,
            "similarity": "cosine",
            "precision": "fp32",
        },
        stores={"train": describe_store(train), "test": describe_store(split.test.store)},
        representation=representation,
        selection=split.to_json(),
        counts=split.counts(),
        scores={f"k={k}": score.to_json() for k, score in scores.items()},
        seconds={"read": read - began, "classify": time.perf_counter() - read},
        details={"device": device},
    )
    return KnnResult(scores, split, result, write_result(results, result))


def nearest_votes(
    train: LabelledRows,
    test: LabelledRows,
    n_classes: int,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Ints:
    """Class indices (K, n) of the test rows, for each k. Cosines are float32, in blocks.

    Raises `OutOfRangeError` for a k below 1 or above N, `UsageError` for a temperature that is not
    positive, `VerificationError` for features that are not finite, `MismatchError` for sides of
    different width.
    """
    _check(train, test, ks, temperature)
    place, progress = find_device(device), progress or Silent()
    targets = torch.tensor(train.targets, device=place)
    progress.start("nearest neighbours", len(test.rows), "rows")
    found = []
    try:
        for start in range(0, len(test.rows), TEST_BLOCK):
            queries = _unit(test.features[start : start + TEST_BLOCK], place)
            cosines, rows = _nearest(queries, train.features, max(ks))
            # The largest weight of a row is 1: only ratios count, and exp(1 / T) may overflow.
            weights = ((cosines - cosines[:, :1]) / temperature).exp()
            found.append(torch.stack([_vote(weights, targets[rows], k, n_classes) for k in ks]))
            progress.advance(len(queries))
    finally:
        progress.stop()
    votes: Ints = torch.cat(found, dim=1).cpu().numpy()
    return votes


def _nearest(queries: Tensor, features: npt.NDArray[Any], k: int) -> tuple[Tensor, Tensor]:
    """Cosines and training rows of the k nearest, the nearest first: (B, k) each."""
    best = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(features), TRAIN_BLOCK):
        block = _unit(features[start : start + TRAIN_BLOCK], queries.device)
        cosines, places = (queries @ block.T).topk(min(k, len(block)), dim=1)
        best, rows = torch.cat([best, cosines], 1), torch.cat([rows, places + start], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, order)
    return best, rows


def _vote(weights: Tensor, labels: Tensor, k: int, n_classes: int) -> Tensor:
    votes = weights.new_zeros(len(weights), n_classes)
    return votes.scatter_add_(1, labels[:, :k], weights[:, :k]).argmax(1)


def _unit(features: npt.NDArray[Any], device: torch.device) -> Tensor:
    x = torch.from_numpy(np.array(features, dtype=np.float32)).to(device)
    return torch.nn.functional.normalize(x, dim=1)


def _check(train: LabelledRows, test: LabelledRows, ks: Sequence[int], temperature: float) -> None:
    n_train = len(train.rows)
    wrong = [k for k in ks if not 1 <= k <= n_train]
    if wrong or not ks:
        raise OutOfRangeError(
            f"k must lie between 1 and the number of training rows, {n_train}, not "
            f"{', '.join(map(str, wrong)) or 'an empty list'}. Give smaller values with -k."
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(f"the temperature must be positive, not {temperature}.")
    widths = train.features.shape[1], test.features.shape[1]
    if widths[0] != widths[1]:
        raise MismatchError(f"training features have width {widths[0]}, test features {widths[1]}.")
    check_finite("training", train)
    check_finite("test", test)
