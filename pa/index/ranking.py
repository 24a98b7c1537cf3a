"""Rank rows by cosine, with answers that do not depend on the index.

FAISS proposes candidates; their cosines are computed again from the stored vectors (accumulated in
float64, reported as float32) and ranked, equal cosines by ascending row id. For an exact index the
answer is proven complete: FAISS's own score of a row differs from its cosine by less than a known
bound, so once the k-th cosine exceeds the lowest score among the candidates by that bound, no other
row can belong among the k. Until then, more candidates are asked for. So `Flat` and `SQfp16`, whose
scores are rounded to fp16, give the same rows and the same cosines. By the same bound, candidates
that score too low to be among the k are not read from the store at all: nearly every candidate lies
in a shard of its own, and opening shards is most of what one query costs.

Shapes: B queries in a batch, D width, n candidates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pa.data.vectors import unit_vectors
from pa.index.stored import Index
from pa.index.vectors import cosines, error_bound

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
        kept = [
            _contenders(index, scores[i], rows[i], excluded[place], k)
            for i, place in enumerate(pending)
        ]
        ranked = _rank(index, vectors[pending], kept)
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
    bound = _bound(index)
    return bound is not None and float(found[k - 1]) > lowest + bound


def _bound(index: Index) -> float | None:
    """By how much FAISS's scores can differ from cosines; None where they are rough estimates."""
    described = index.info.factory.partition("@")[0]
    matched = re.fullmatch(r"(IVF\d+,)?(Flat|SQfp16)", described)
    if matched is None:
        return None
    half = matched[2] == "SQfp16"
    bound = error_bound(index.info.dimension, half_gallery=half, half_query=half and index.on_gpu)
    # Lists keep what is left of a vector without their centroid, which may be twice as long.
    return 2 * bound if matched[1] else bound


def _contenders(
    index: Index,
    scores: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    excluded: npt.NDArray[np.int64],
    k: int,
) -> npt.NDArray[np.int64]:
    """The candidates (n,) of one query that can be among its k, ascending."""
    allowed = (rows >= 0) & ~np.isin(rows, excluded)
    scores, rows = scores[allowed].astype(np.float64), rows[allowed]
    bound = _bound(index)
    if bound is not None and len(rows) > k:
        # k rows have a cosine above the k-th score less the bound; these may reach that.
        rows = rows[scores >= np.sort(scores)[-k] - 2 * bound]
    return np.sort(rows)


def _rank(
    index: Index, vectors: npt.NDArray[Any], candidates: list[npt.NDArray[np.int64]]
) -> list[Ranked]:
    """Order the candidates (n,) of each query by exact cosine, then by row id."""
    # Queries share candidates, and every read opens shards: read the union once.
    union = np.unique(np.concatenate(candidates))
    features = index.store.read(index.info.representation, union)
    ranked = []
    for vector, rows in zip(vectors, candidates, strict=True):
        values = cosines(vector, features[np.searchsorted(union, rows)])
        order = np.argsort(-values, kind="stable")
        ranked.append((rows[order], values[order]))
    return ranked
