"""Exhaustive search of an fp16 gallery for many queries at once.

FAISS's scalar quantiser takes queries one by one and reads the gallery for each. Where there are
many, a block widened to float32 and one matrix product for all of them is faster; how much,
`benchmarks/search.py` says.

Shapes: N rows of the gallery, Q queries, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# From how many queries on: before, widening the gallery costs more than it saves.
MANY = 64
# 50 MB of float32 at D = 768.
_BLOCK_ROWS = 16_384


def scan(
    faiss_index: Any, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k ≤ N largest inner products of each query (Q, D), descending: scores, rows, (Q, k).

    `faiss_index` is a FAISS `SQfp16` index, perhaps memory-mapped; a block of it is widened at a
    time.
    """
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, faiss_index.ntotal, _BLOCK_ROWS):
        n = min(_BLOCK_ROWS, faiss_index.ntotal - start)
        block = faiss_index.reconstruct_n(start, n)
        found = np.broadcast_to(np.arange(start, start + n), (len(queries), n))
        scores, rows = _largest(np.hstack([scores, queries @ block.T]), np.hstack([rows, found]), k)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _largest(
    scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if scores.shape[1] <= k:
        return scores, rows
    places = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    return np.take_along_axis(scores, places, 1), np.take_along_axis(rows, places, 1)
