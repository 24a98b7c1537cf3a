"""Unit vectors, for cosine similarity.

Shapes: n vectors, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 8192  # bounds the memory used in addition to the result


def unit_vectors(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale each finite row of (n, D) to length one, float32. A zero vector stays zero."""
    out = np.empty(vectors.shape, dtype=np.float32)  # (n, D)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = out[start : start + _BLOCK_ROWS]
        block[...] = vectors[start : start + _BLOCK_ROWS]
        # Divide by the largest entry first: the square of a float32 may overflow or underflow.
        largest = np.abs(block).max(axis=1, initial=0.0, keepdims=True)  # (block, 1)
        block /= np.where(largest > 0, largest, np.float32(1))
        length = np.sqrt(np.einsum("nd,nd->n", block, block))[:, None]  # (block, 1)
        block /= np.where(length > 0, length, np.float32(1))
    return out
