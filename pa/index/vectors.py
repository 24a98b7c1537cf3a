"""The arithmetic of cosines: exact ones for what is reported, and how far FAISS's may be off.

Shapes: n vectors, D width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 4096


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


def error_bound(dimension: int, *, half_gallery: bool, half_query: bool = False) -> float:
    """The most by which FAISS's inner product of two unit vectors can differ from their cosine.

    float32 sums of D products, and both normalisations, err by less than (2 D + 8) · 2⁻²⁴. Each
    side that is rounded to fp16 (the gallery of `SQfp16`; on a GPU its queries too) adds 2⁻¹¹ ·
    Σ|q||x| ≤ 2⁻¹¹ and, for entries below fp16's normal range, √D · 2⁻²⁵; both together the product
    of the two errors.
    """
    rounding = 2.0**-11 + math.sqrt(dimension) * 2.0**-25
    gallery, query = rounding * half_gallery, rounding * half_query
    return (2 * dimension + 8) * 2.0**-24 + gallery + query + gallery * query
