"""`pa probe knn`: weighted nearest neighbours on stored features, by the protocol of DINO.

Caron et al. 2021, `eval_knn.py`: features of unit length; each of the k nearest training rows votes
for its class with weight exp(cosine / T), T = 0.07. Nothing is trained or chosen: every k of the
list is reported.

Shapes: N training rows, n test rows, B rows of a block, D width, C classes, K values of k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.errors import OutOfRangeError, UsageError
from pa.evaluate.devices import torch_device
from pa.evaluate.result_files import write_result
from pa.evaluate.results import KnnProbeResult
from pa.probe.recording import ClassificationScorer, ScoredProbe, probe_result
from pa.probe.selection import LabelledRows, ProbeStores, check_features
from pa.progress import Progress, Silent, Stopwatch

KS = (10, 20, 100, 200)  # DINO's list
TEMPERATURE = 0.07  # DINO's T

# Cosines in memory at a time: 1024 × 16,384, 67 MB, for any number of rows.
TEST_BLOCK = 1024
TRAIN_BLOCK = 16384

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KnnOptions:
    """Options of the k-NN probe."""

    representation: str = "cls"
    ks: tuple[int, ...] = ()  # empty selects those of `KS` that are at most N
    temperature: float = TEMPERATURE
    protocol: str = ""  # the stores that may be paired; see `pa.probe.recipes.PART_STORES`


def run_knn(
    stores: ProbeStores,
    options: KnnOptions | None = None,
    *,
    results: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ScoredProbe:
    """Classify the test rows by their nearest training rows and write the result.

    Raise what `split_rows` and `nearest_votes` raise, and `StorageError`.
    """
    options, clock = options or KnnOptions(), Stopwatch()
    split = stores.split(options.protocol)
    n_train = len(split.train.rows)
    chosen = options.ks or tuple(k for k in KS if k <= n_train) or (1,)
    train, test = (side.read(options.representation) for side in (split.train, split.test))
    clock.lap("read")
    n_classes, T = len(split.classes), options.temperature
    predicted = nearest_votes(train, test, n_classes, chosen, T, device=device, progress=progress)
    scorer = ClassificationScorer(split)
    scores = {k: scorer.score([votes]) for k, votes in zip(chosen, predicted, strict=True)}
    clock.lap("classify")
    result = probe_result(
        KnnProbeResult,
        split,
        options.representation,
        {
            "protocol": "dino",
            "k": list(chosen),
            "temperature": options.temperature,
            "similarity": "cosine",
            "precision": "fp32",
        },
        {f"k={k}": of_k for k, of_k in scores.items()},
        clock.laps,
        {"device": device},
    )
    return ScoredProbe(scores, split, result, write_result(results, result))


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
    """Return class indices (K, n) of the test rows, for each k. Cosines are float32, in blocks.

    Raise `OutOfRangeError` for a k below 1 or above N, `UsageError` for a temperature that is not
    positive, `VerificationError` for features that are not finite, `MismatchError` for sides of
    different width.
    """
    n_train = len(train.rows)
    wrong = [k for k in ks if not 1 <= k <= n_train]
    if wrong or not ks:
        raise OutOfRangeError(
            f"k must be between 1 and the number of training rows, {n_train}, not "
            f"{', '.join(map(str, wrong)) or 'an empty list'}. Give smaller values with -k."
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(f"the temperature must be positive, not {temperature}.")
    check_features(train, test)
    target_device, progress = torch.device(torch_device(device)), progress or Silent()
    targets = torch.tensor(train.targets, device=target_device)  # (N,)
    progress.start("nearest neighbours", len(test.rows), "rows")
    blocks = []
    try:
        for start in range(0, len(test.rows), TEST_BLOCK):
            queries = _unit(test.features[start : start + TEST_BLOCK], target_device)  # (B, D)
            cosines, rows = _nearest(queries, train.features, max(ks))  # (B, max k) each
            # The largest weight of a row is 1: only ratios count, and exp(1 / T) may overflow.
            weights = ((cosines - cosines[:, :1]) / temperature).exp()
            labels = targets[rows]  # (B, max k)
            votes = []
            for k in ks:
                counts = weights.new_zeros(len(weights), n_classes)  # (B, C)
                # Of classes with equal votes the first in the list of classes wins.
                votes.append(counts.scatter_add_(1, labels[:, :k], weights[:, :k]).argmax(1))
            blocks.append(torch.stack(votes))  # (K, B)
            progress.advance(len(queries))
    finally:
        progress.stop()
    predicted: Ints = torch.cat(blocks, dim=1).cpu().numpy()  # (K, n)
    return predicted


def _nearest(queries: Tensor, features: npt.NDArray[Any], k: int) -> tuple[Tensor, Tensor]:
    """Return cosines and training rows of the k nearest, the nearest first: (B, k) each."""
    best = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(features), TRAIN_BLOCK):
        block = _unit(features[start : start + TRAIN_BLOCK], queries.device)  # (TRAIN_BLOCK, D)
        cosines, positions = (queries @ block.T).topk(min(k, len(block)), dim=1)  # (B, k) each
        # The best of this block join those of earlier blocks: at most 2·k compete.
        best, rows = torch.cat([best, cosines], 1), torch.cat([rows, positions + start], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, order)
    return best, rows


def _unit(features: npt.NDArray[Any], device: torch.device) -> Tensor:
    x = torch.from_numpy(np.array(features, dtype=np.float32)).to(device)
    return torch.nn.functional.normalize(x, dim=1)
