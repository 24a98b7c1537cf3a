"""Rank rows by cosine, so that the answer does not depend on the index.

FAISS proposes candidates. Their cosines are computed again from the stored vectors (accumulated in
float64, reported as float32) and ranked, equal cosines by ascending row id. For an exact index the
answer is proven complete: FAISS's score of a row differs from its cosine by less than a known
bound. Once the k-th cosine exceeds the lowest score among the candidates by that bound, no other
row can belong to the k; until then, more candidates are requested. `Flat` and `SQfp16`, whose
scores are rounded to fp16, therefore give the same rows and cosines. By the same bound, candidates
with too low a score are not read from the store at all: nearly every candidate is in a different
shard, and opening shards is most of the cost of a query.

Shapes: B queries in a batch, D width, n candidates.
"""

from __future__ import annotations

import math
import re
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pa.data.vectors import unit_vectors
from pa.index.stored import Index

Ints: TypeAlias = npt.NDArray[np.int64]
Ranked: TypeAlias = tuple[Ints, npt.NDArray[np.float32]]  # (k,) row ids, (k,) cosines, descending

_MARGIN = 64  # candidates beyond those needed, so that one request nearly always suffices
_BATCH_CANDIDATES = 65_536  # rows read to rank a batch: 100 MB of fp16 at D = 768
_BLOCK_ROWS = 4096  # rows widened to float64 at a time: 25 MB at D = 768


def nearest(index: Index, vectors: npt.NDArray[Any], excluded: list[Ints], k: int) -> list[Ranked]:
    """Return the k nearest rows of each query.

    Parameters
    ----------
    vectors : array of shape (B, D)
        Query vectors.
    excluded : list of B integer arrays
        Row ids that must not be among the answers of each query.

    Returns
    -------
    list of (row ids, cosines)
        An approximate index may find fewer than k.
    """
    size = max(1, _BATCH_CANDIDATES // (2 * k + _MARGIN))
    batches = (slice(start, start + size) for start in range(0, len(vectors), size))
    return [
        answer
        for batch in batches
        for answer in _search_batch(index, vectors[batch], excluded[batch], k)
    ]


def _search_batch(
    index: Index, vectors: npt.NDArray[Any], excluded: list[Ints], k: int
) -> list[Ranked]:
    """Request more candidates until the answer of every query is settled."""
    answers: dict[int, Ranked] = {}
    pending = list(range(len(vectors)))
    n = 2 * k + max(map(len, excluded)) + _MARGIN
    bound = score_error_bound(index)
    while pending:
        n = min(n, index.n)
        scores, rows = index.candidates(unit_vectors(vectors[pending]), n)  # (B, n) each
        exhausted = (rows[:, -1] < 0) | (n == index.n)  # (B,)
        contenders = [
            _contenders(scores[i], rows[i], excluded[query], k, bound)
            for i, query in enumerate(pending)
        ]
        # Queries share candidates, and every read opens shards: read the union once.
        union = np.unique(np.concatenate(contenders))
        features = index.store.read(index.info.representation, union)  # (union, D)
        for i, (query, ids) in enumerate(zip(pending, contenders, strict=True)):
            values = cosines(vectors[query], features[np.searchsorted(union, ids)])  # (n,)
            order = np.argsort(-values, kind="stable")  # ids ascend, so equal cosines stay by id
            ids, values = ids[order], values[order]  # (n,) each
            lowest = float(scores[i, -1])  # no row beyond the candidates has a higher score
            settled = len(ids) >= k and (
                not index.info.exact
                or (bound is not None and float(values[k - 1]) > lowest + bound)
            )
            if exhausted[i] or settled:
                answers[query] = (ids[:k], values[:k])
        pending = [query for query in pending if query not in answers]
        n *= 4  # few rounds, even for thousands of nearly equal vectors
    return [answers[query] for query in range(len(vectors))]


def _contenders(
    scores: npt.NDArray[np.float32], rows: Ints, excluded: Ints, k: int, bound: float | None
) -> Ints:
    """Return the candidates of one query that can be among its k, ascending."""
    allowed = (rows >= 0) & ~np.isin(rows, excluded)  # -1: FAISS found fewer
    scores, rows = scores[allowed].astype(np.float64), rows[allowed]
    if bound is not None and len(rows) > k:
        # k rows have a cosine above the k-th score minus the bound; only these can reach it.
        rows = rows[scores >= np.sort(scores)[-k] - 2 * bound]
    return np.sort(rows)


# -- arithmetic ------------------------------------------------------------------------------------


def cosines(query: npt.NDArray[Any], vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the cosines (n,) of one query (D,) to vectors (n, D).

    They are accumulated in float64 and returned as float32. Each row is summed separately (no
    matrix product), so that a cosine does not depend on the other vectors of the batch, and equal
    vectors get equal cosines.
    """
    wide = query.astype(np.float64)  # (D,)
    length = np.sqrt((wide * wide).sum())
    out = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float64)  # (rows, D)
        lengths = np.sqrt((block * block).sum(axis=1))  # (rows,)
        out[start : start + _BLOCK_ROWS] = (block * wide).sum(axis=1) / (lengths * length)
    return out


def score_error_bound(index: Index) -> float | None:
    """Return by how much FAISS's scores can differ from cosines; None for rough estimates."""
    factory = index.info.factory.partition("@")[0]
    matched = re.fullmatch(r"(IVF\d+,)?(Flat|SQfp16)", factory)
    if matched is None:
        return None
    half = matched[2] == "SQfp16"
    bound = error_bound(index.info.dimension, half_gallery=half, half_query=half and index.on_gpu)
    # A list stores the residual of a vector to its centroid, which may be twice as long.
    return 2 * bound if matched[1] else bound


def error_bound(dimension: int, *, half_gallery: bool, half_query: bool = False) -> float:
    """Return by how much FAISS's inner product of two unit vectors can differ from their cosine.

    float32 sums of D products, and both normalisations, err by less than (2 D + 8) · 2⁻²⁴. Each
    side that is rounded to fp16 (the gallery of `SQfp16`; on a GPU its queries too) adds 2⁻¹¹ ·
    Σ|q||x| ≤ 2⁻¹¹ and, for entries below fp16's normal range, √D · 2⁻²⁵; both together add the
    product of the two errors.
    """
    rounding = 2.0**-11 + math.sqrt(dimension) * 2.0**-25
    gallery, query = rounding * half_gallery, rounding * half_query
    return (2 * dimension + 8) * 2.0**-24 + gallery + query + gallery * query
