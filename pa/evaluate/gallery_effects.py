"""How the average precision of all queries depends on each item of the gallery.

New images bring new queries and a new gallery. The average precision of a query has a derivative
with respect to the weight of each item: with relevant items j of weight w,
AP = Σ w_j · H_j / N_j / Σ w_j, where H_j and N_j are the weights of the relevant items and of all
items scored at least as high. At equal weights, with P relevant items,

    ∂AP/∂w_m = (1/P) · [ relevant_m · (H_m / N_m - AP + Σ_j 1 / N_j) - Σ_j H_j / N_j² ],

both sums over the relevant items j scored at most as high as m. The query itself keeps its weight:
every query meets itself once or never, whatever images there are.

This needs the rank of every item, so the sort carries its permutation and takes three times as
long. It is done for a sample of the queries, of every class, which estimates the sum over all.

Shapes: N vectors sorted by class, C classes, S sampled queries, P relevant items.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from pa.evaluate.average_precision import LAST, Keys, keys_in_place
from pa.evaluate.cosines import Ints, UnitVectors, threads
from pa.progress import Progress

Floats = npt.NDArray[np.float64]

SAMPLED = 512  # queries of all classes together, unless that leaves a class below its minimum
SAMPLED_OF_CLASS = 16  # minimum number of queries per class; adds about 3 % to a variance
KEPT = 8 << 20  # entries of `of_class`, 64 MB; above, only the sums over classes are kept
_BLOCK = 64  # queries per task


@dataclass(frozen=True, eq=False)
class GalleryEffects:
    """Sums over queries of the derivative of their AP by the weight of each item.

    `all` (N,): over all queries; `over_classes` (N,): mean over the classes of the mean over their
    queries; `of_class` (N, C): over the queries of each class, None if that is more than `KEPT`
    numbers. Classes are in the order of their sorted names.
    """

    all: Floats
    over_classes: Floats
    of_class: Floats | None

    def at(self, rows: Ints) -> GalleryEffects:
        """Return the effects of some rows, in their order."""
        of_class = None if self.of_class is None else self.of_class[rows]
        return GalleryEffects(self.all[rows], self.over_classes[rows], of_class)

    def __sub__(self, other: GalleryEffects) -> GalleryEffects:
        """Return the effects on the difference of two scores of the same queries, by row."""
        of_class = None
        if self.of_class is not None and other.of_class is not None:
            of_class = self.of_class - other.of_class
        return GalleryEffects(
            self.all - other.all, self.over_classes - other.over_classes, of_class
        )


def gallery_effects(
    gallery: UnitVectors, bounds: Ints, include_self: bool, progress: Progress
) -> GalleryEffects:
    """Compute the effects of vectors sorted by class: class c has rows bounds[c] to bounds[c+1].

    Classes without a relevant item for their queries have no effect and are skipped.
    """
    n, sizes = len(gallery), np.diff(bounds)  # sizes: (C,)
    tasks = list(_tasks(bounds, include_self))
    scored = np.flatnonzero(sizes > (0 if include_self else 1))
    of_class = np.zeros((n, len(sizes))) if n * len(sizes) <= KEPT else None
    total, over_classes = np.zeros(n), np.zeros(n)

    def work(task: tuple[int, Ints, float]) -> tuple[int, Floats]:
        label, queries, scale = task
        low, high = bounds[label], bounds[label + 1]
        block = np.empty((len(queries), n), dtype=np.float32)  # (S, N)
        keys = keys_in_place(gallery.cosines(queries, block, sign=-1))  # (S, N)
        keys[:, low:high] += 1  # odd: relevant
        effects = np.zeros(n)  # (N,), summed over the queries
        for row, query in zip(keys, queries, strict=True):
            if not include_self:
                row[query] = LAST
            # The query itself keeps its weight: it meets itself once or never.
            unchanged = effects[query]
            _add_effects(row, effects)
            effects[query] = unchanged
        return label, scale * effects

    progress.start("effect of the gallery", sum(len(queries) for _, queries, _ in tasks), "queries")
    try:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads()) as pool:
            for (label, effects), task in zip(pool.map(work, tasks), tasks, strict=True):
                total += effects
                over_classes += effects / (sizes[label] * len(scored))  # mean of means
                if of_class is not None:
                    of_class[:, label] += effects
                progress.advance(len(task[1]))
    finally:
        progress.stop()
    return GalleryEffects(total, over_classes, of_class)


def _tasks(bounds: Ints, include_self: bool) -> Iterator[tuple[int, Ints, float]]:
    """Yield sampled queries of one class: class, queries, and how many each represents."""
    # A fixed seed: a repeated run writes the same interval.
    rng = np.random.default_rng(0)
    per_class = max(SAMPLED_OF_CLASS, -(-SAMPLED // (len(bounds) - 1)))
    for label, (low, high) in enumerate(pairwise(bounds.tolist())):
        if high - low > (0 if include_self else 1):
            size = min(per_class, high - low)
            chosen = np.sort(low + rng.choice(high - low, size, replace=False))
            for start in range(0, size, _BLOCK):
                yield label, chosen[start : start + _BLOCK], (high - low) / size


def _add_effects(keys: Keys, out: Floats) -> None:
    """Add the derivative of one query's AP by the weight of each item (N,) to `out` (N,).

    `keys` (N,) are as `average_precision.keys_in_place` gives them, odd for a relevant item.
    """
    order = np.argsort(keys)
    ordered = keys[order]
    relevant = np.flatnonzero(ordered & 1)  # (P,): positions in the ranking
    scores = ordered[relevant]  # (P,)
    hits, rank = np.arange(1, len(relevant) + 1), relevant + 1
    # Equal scores share the threshold of the last of them, so also its precision.
    tied = (scores[1:] == scores[:-1]).any()
    if tied:
        last = np.searchsorted(scores, scores, side="right") - 1
        hits, rank = hits[last], rank[last]
    precision = hits / rank  # (P,): H_j / N_j
    gain = np.cumsum((1 / rank)[::-1])[::-1]  # (P,): Σ_j 1 / N_j
    loss = np.cumsum((precision / rank)[::-1])[::-1]  # (P,): Σ_j H_j / N_j²
    # An item that is not relevant lowers the precision of all relevant items below it; items after
    # the last relevant one have no effect.
    effect = np.repeat(-loss, np.diff(relevant, prepend=-1))
    if tied:
        first = np.searchsorted(scores, scores, side="left")
        gain, loss = gain[first], loss[first]
    effect[relevant] = precision - precision.mean() + gain - loss
    out[order[: len(effect)]] += effect / len(relevant)
