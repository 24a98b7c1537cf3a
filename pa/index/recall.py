"""Measure the recall of an approximate index against exact search when it is built.

Shapes: Q queries, n rows of a block, D width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pa.data.vectors import unit_vectors
from pa.index.ranking import nearest
from pa.index.stored import Index, Recall
from pa.progress import Progress

RECALL_K = 24  # the neighbours that the paper's figures show
RECALL_QUERIES = 256  # standard error below 0.002 at a recall of 0.95 of 24 neighbours each
RECALL_SEED = 0  # recorded in index.json

_TOLERANCE = 2e-6  # two orders of summing one cosine in float32 differ by less


def measure_recall(index: Index, progress: Progress) -> Recall:
    """Measure recall@24 over up to 256 rows drawn from the index, each searched without itself.

    A neighbour counts if its cosine reaches that of the exact 24th, so that rows of equal cosine
    are interchangeable.
    """
    k = min(RECALL_K, index.n - 1)
    queries = recall_queries(index)  # (Q,)
    if k < 1:
        return Recall(k, len(queries), RECALL_SEED, 1.0)
    representation, store = index.info.representation, index.store
    vectors = store.read(representation, queries)  # (Q, D)
    units = unit_vectors(vectors)  # (Q, D)
    # The largest cosines by exhaustive search. One more than k: the query itself is among them.
    best = np.full((len(queries), k + 1), -np.inf, dtype=np.float32)
    progress.start(f"{store.label} · recall of {index.info.factory}", store.n_rows, "rows")
    try:
        for first, block in store.blocks(representation):
            rows = np.arange(first, first + len(block))  # (n,)
            scores = units @ unit_vectors(block[index.holds(rows)]).T  # (Q, n)
            best = np.partition(np.hstack([best, scores]), scores.shape[1], axis=1)[:, -(k + 1) :]
            progress.advance(len(block))
    finally:
        progress.stop()
    answers = nearest(index, vectors, list(queries[:, None]), k)
    limits = best[:, 0] - _TOLERANCE  # (Q,): the smallest of the k + 1 largest
    hits = sum(
        int((cosines >= limit).sum()) for (_, cosines), limit in zip(answers, limits, strict=True)
    )
    return Recall(k, len(queries), RECALL_SEED, round(hits / (k * len(queries)), 4))


def recall_queries(index: Index) -> npt.NDArray[np.int64]:
    """Return the row ids of the seeded queries, ascending."""
    generator = np.random.default_rng(RECALL_SEED)
    ids = np.arange(index.n) if index.ids is None else index.ids  # (N,)
    return np.sort(generator.choice(ids, min(RECALL_QUERIES, index.n), replace=False))
