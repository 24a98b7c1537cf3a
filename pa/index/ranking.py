"""Rank rows by cosine, with answers that do not depend on the index.

FAISS proposes candidates; their cosines are computed again from the stored vectors (accumulated in
float64, reported as float32) and ranked, equal cosines by ascending row id. For an exact index the
answer is proven complete: FAISS's own score of a row differs from its cosine by less than a known
bound, so once the k-th cosine exceeds the lowest score among the candidates by that bound, no other
row can belong among the k. Until then, more candidates are asked for. So `Flat` and `SQfp16`, whose
scores are rounded to fp16, give the same rows and the same cosines.

Shapes: B queries in a batch, D width, n candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pa.index.stored import Index
from pa.index.vectors import cosines, error_bound, unit_vectors

# Row ids (k,) int64 and their cosines (k,) float32, the largest first.
Ranked: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]

# Candidates beyond those needed, so that the first round nearly always suffices.
_MARGIN = 64
# Rows read at once to rank the candidates of a batch: 100 MB of fp16 at D = 768.
_BATCH_CANDIDATES = 65_536


def nearest(
    index: Index, vectors: npt.NDArray[Any], excluded: list[npt.NDArray[np.int64]], k: int
) -> list[Ranked]:
    """The k nearest rows of each query vector (B, D), without its `excluded` row ids.

    An approximate index may find fewer than k.
    """
    return [
        answer
        for batch in _batches(len(vectors), k)
        for answer in _search_batch(index, vectors[batch], excluded[batch], k)
    ]


def _batches(n_queries: int, k: int) -> Iterator[slice]:
    size = max(1, _BATCH_CANDIDATES // (2 * k + _MARGIN))
    return (slice(start, start + size) for start in range(0, n_queries, size))


def _search_batch(
    index: Index, vectors: npt.NDArray[Any], excluded: list[npt.NDArray[np.int64]], k: int
) -> list[Ranked]:
    """Ask for more candidates until the answer of every query is settled."""
    answers: dict[int, Ranked] = {}
    pending = list(range(len(vectors)))
    width = 2 * k + max(map(len, excluded)) + _MARGIN
    while pending:
        width = min(width, index.n)
        scores, rows = index.candidates(unit_vectors(vectors[pending]), width)
        exhausted = (rows[:, -1] < 0) | (width == index.n)
        ranked = _rank(index, vectors[pending], rows, [excluded[place] for place in pending])
        for i, place in enumerate(pending):
            if exhausted[i] or _is_settled(index, ranked[i], k, float(scores[i, -1])):
                answers[place] = (ranked[i][0][:k], ranked[i][1][:k])
        pending = [place for place in pending if place not in answers]
        width *= 4
    return [answers[place] for place in range(len(vectors))]


def _is_settled(index: Index, ranked: Ranked, k: int, lowest: float) -> bool:
    """Whether no row beyond the candidates, all scored `lowest` or less, can be among the k."""
    _, found = ranked
    if len(found) < k:
        return False
    if not index.info.exact:
        return True
    half = index.info.factory == "SQfp16"
    return float(found[k - 1]) > lowest + error_bound(index.info.dimension, half=half)


def _rank(
    index: Index,
    vectors: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    excluded: list[npt.NDArray[np.int64]],
) -> list[Ranked]:
    """Order the candidates (B, n) of each query by exact cosine, then by row id."""
    kept = [
        np.sort(candidates[(candidates >= 0) & ~np.isin(candidates, without)])
        for candidates, without in zip(rows, excluded, strict=True)
    ]
    # Queries share candidates, and every read opens shards: read the union once.
    union = np.unique(np.concatenate(kept))
    features = index.store.read(index.info.representation, union)
    ranked = []
    for vector, candidates in zip(vectors, kept, strict=True):
        values = cosines(vector, features[np.searchsorted(union, candidates)])
        order = np.argsort(-values, kind="stable")
        ranked.append((candidates[order], values[order]))
    return ranked
