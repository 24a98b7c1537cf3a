"""Part retrieval: exact average precision of every vector as a query against all others.

Source: paper, section 4.2 and appendix A.4; released code, `pr_patch_retrieval.py`.

Shapes: N vectors, D width, C classes, n queries of a block.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from pa.errors import UsageError
from pa.evaluate import cosines
from pa.evaluate.average_precision import (
    LAST,
    ap_of_keys,
    average_precision,
    expected_average_precision,
    keys_in_place,
)
from pa.evaluate.cosines import Ints, UnitVectors, threads
from pa.evaluate.gallery_effects import GalleryEffects, gallery_effects
from pa.progress import Progress, Silent

__all__ = ["AllPairs", "average_precision", "evaluate_all_pairs"]

Floats = npt.NDArray[np.float64]

_QUERIES = 256  # per task at most: enough for a fast product, few enough to balance threads
_RUN_ENTRIES = 1 << 17  # keys sorted at a time: 512 KB fit the cache of a core


@dataclass(frozen=True, eq=False)
class AllPairs:
    """The scores of N queries.

    `ap` (N,) float64, NaN without a relevant item; `relevant` (N,) int64, number of items with the
    query's label; `candidates`, number of items that each query ranks, with the query itself if
    `include_self`; `effects` of the gallery on the scores, if requested.
    """

    ap: Floats
    relevant: Ints
    candidates: int
    include_self: bool = False
    effects: GalleryEffects | None = None

    @property
    def prior(self) -> Floats:
        """(N,) share of relevant items: the precision of a random set of items."""
        return self.relevant / self.candidates

    @property
    def chance(self) -> Floats:
        """(N,) expected average precision of a random ranking; NaN without a relevant item."""
        counts, inverse = np.unique(self.relevant, return_inverse=True)
        expected = expected_average_precision(counts, self.candidates, self_first=self.include_self)
        return expected[inverse]


def check_labels(
    labels: npt.NDArray[Any], *, include_self: bool = False, of: str = "the features"
) -> None:
    """Raise `UsageError` unless some query has both relevant and other items.

    `of` describes the rows of the labels (N,) in the message.
    """
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise UsageError(
            f"all {len(labels)} rows of {of} have the same label"
            + (f", {str(names[0])!r}" if len(names) else "")
            + ": every answer is correct. Retrieval needs at least two classes."
        )
    if not include_self and counts.max() < 2:
        raise UsageError(
            f"no two rows of {of} have the same label: nothing can be retrieved. Choose another "
            f"column with --target."
        )


def evaluate_all_pairs(
    features: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    *,
    include_self: bool = False,
    device: str = "cpu",
    rows: Ints | None = None,
    with_effects: bool = False,
    progress: Progress | None = None,
) -> AllPairs:
    """Compute the average precision of every vector as a query against all others, by cosine.

    Cosines are float32 (TF32 off), and the sort is exact (see `pa.evaluate.average_precision`).
    Memory: 4·N·D bytes for unit vectors and 64 MB for blocks of cosines, with small copies of them.

    Parameters
    ----------
    features : array of shape (N, D)
        Any float dtype.
    labels : array of shape (N,)
        Vectors with equal labels are relevant to each other.
    include_self : bool
        Whether a query is among its own candidates.
    rows : integer array of shape (N,), optional
        Row ids used in error messages.
    with_effects : bool
        Compute `AllPairs.effects`, which an interval over new images needs.

    Raises
    ------
    UsageError
        For features and labels of different length, for vectors without a cosine, and for labels
        that `check_labels` refuses.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) != len(features):
        raise UsageError(
            f"features and labels must be equally long, not {features.shape} and {labels.shape}."
        )
    check_labels(labels, include_self=include_self)
    names, classes = np.unique(labels, return_inverse=True)  # (C,), (N,)
    # Sort by class, so that the relevant items of a query are a range of columns.
    order = np.argsort(classes, kind="stable")  # (N,)
    gallery = UnitVectors.of(features[order], rows if rows is None else rows[order])
    bounds = np.searchsorted(classes[order], np.arange(len(names) + 1))  # (C + 1,)
    progress = progress or Silent()
    progress.start("average precision", len(gallery), "queries")
    try:
        if device == "cpu":
            ordered = _on_cpu(gallery, bounds, include_self, progress)
        else:
            from pa.evaluate.average_precision_torch import all_pairs

            ordered = all_pairs(gallery, bounds, include_self, device, progress)
    finally:
        progress.stop()
    # Back to the order of the features.
    ap = np.empty(len(ordered))  # (N,)
    ap[order] = ordered
    # The query is among the items that it ranks in the released code, and left out in the paper.
    others = 0 if include_self else 1
    effects = None
    if with_effects:
        inverse = np.argsort(order)
        effects = gallery_effects(gallery, bounds, include_self, progress).at(inverse)
    return AllPairs(
        ap, np.diff(bounds)[classes] - others, len(gallery) - others, include_self, effects
    )


def _on_cpu(gallery: UnitVectors, bounds: Ints, include_self: bool, progress: Progress) -> Floats:
    """Score queries in threads that each multiply and sort on one core.

    Products and sorts of different threads overlap, and no thread waits for another. This is faster
    than a product over all cores followed by the sorts.
    """
    n, n_threads = len(gallery), threads()
    out = np.full(n, np.nan)  # (N,)
    step = max(1, min(_QUERIES, cosines.BLOCK_BYTES // (4 * n * n_threads)))
    local = threading.local()

    def score(task: tuple[int, int, int]) -> int:
        start, stop, label = task
        low, high = bounds[label], bounds[label + 1]
        if high - low > (0 if include_self else 1):
            # One buffer per thread, for all blocks that it scores.
            if not hasattr(local, "buffer"):
                local.buffer = np.empty((step, n), dtype=np.float32)
            # Negated, so that an ascending sort ranks the nearest first.
            negated = gallery.cosines(slice(start, stop), local.buffer[: stop - start], sign=-1)
            run = max(1, _RUN_ENTRIES // n)
            for first in range(start, stop, run):
                last = min(first + run, stop)
                keys = keys_in_place(negated[first - start : last - start])  # (n, N)
                # The lowest bit of a key is the relevance; see `average_precision`.
                keys[:, low:high] += 1
                # An item after all others changes no rank and no precision.
                if not include_self:
                    keys[np.arange(last - first), np.arange(first, last)] = LAST
                out[first:last] = ap_of_keys(keys)
        return stop - start

    tasks = [
        (start, min(start + step, high), label)  # at most `step` queries of one class
        for label, (low, high) in enumerate(pairwise(bounds.tolist()))
        for start in range(low, high, step)
    ]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        for n_scored in pool.map(score, tasks):
            progress.advance(n_scored)
    return out
