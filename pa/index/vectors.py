"""The arithmetic of cosines: unit vectors for FAISS, exact cosines for what is reported.

Shapes: n vectors, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 4096


def unit_vectors(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale each row of (n, D) to length one, float32. A zero vector stays zero."""
    values = vectors.astype(np.float32)
    # By the largest entry first: the square of a float32 may overflow, or vanish.
    largest = np.abs(values).max(axis=1, initial=0.0, keepdims=True)
    values /= np.where(largest > 0, largest, np.float32(1))
    length = np.sqrt(np.einsum("nd,nd->n", values, values))[:, None]
    values /= np.where(length > 0, length, np.float32(1))
    return values


def cosines(query: npt.NDArray[Any], vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Cosines of one query (D,) to vectors (n, D), accumulated in float64, returned as float32.

    Each row is summed on its own (no matrix product), so a cosine does not depend on which other
    vectors are in the batch, and equal vectors get equal cosines.
    """
    wide = query.astype(np.float64)
    length = np.sqrt((wide * wide).sum())
    out = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float64)
        lengths = np.sqrt((block * block).sum(axis=1))
        out[start : start + _BLOCK_ROWS] = (block * wide).sum(axis=1) / (lengths * length)
    return out


def error_bound(dimension: int, *, half: bool) -> float:
    """The most by which FAISS's inner product of two unit vectors can differ from their cosine.

    float32 sums of D products, and both normalisations, err by less than (2 D + 8) · 2⁻²⁴; a
    gallery kept in fp16 (`half`) adds 2⁻¹¹ · Σ|q||x| ≤ 2⁻¹¹ and, for entries below fp16's normal
    range, √D · 2⁻²⁵.
    """
    bound = (2 * dimension + 8) * 2.0**-24
    return bound + 2.0**-11 + dimension**0.5 * 2.0**-25 if half else bound
