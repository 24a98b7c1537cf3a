"""Search an fp16 gallery exhaustively for many queries at once.

FAISS's scalar quantiser reads the gallery once per query. For many queries it is faster to widen a
block of the gallery to float32 and multiply it with all of them (`benchmarks/search.py`).

Shapes: N rows of the gallery, Q queries, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MANY = 64  # queries: with fewer, widening the gallery costs more than it saves
_BLOCK_ROWS = 16_384  # 50 MB of float32 at D = 768


def scan(
    faiss_index: Any, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the k ≤ N largest inner products of each query (Q, D), descending.

    `faiss_index` is a FAISS `SQfp16` index, possibly memory-mapped. Returns scores and rows, (Q, k)
    each.
    """
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, faiss_index.ntotal, _BLOCK_ROWS):
        n = min(_BLOCK_ROWS, faiss_index.ntotal - start)
        block = faiss_index.reconstruct_n(start, n)  # (n, D)
        block_rows = np.broadcast_to(np.arange(start, start + n), (len(queries), n))
        scores = np.hstack([scores, queries @ block.T])  # (Q, ≤ k + n)
        rows = np.hstack([rows, block_rows])
        if scores.shape[1] > k:
            largest = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]  # (Q, k)
            scores = np.take_along_axis(scores, largest, 1)
            rows = np.take_along_axis(rows, largest, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
