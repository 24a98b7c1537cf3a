"""All cosines of a set of vectors, a block of queries at a time.

Shapes: N vectors, D width, B queries of a block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from pa.data.vectors import unit_vectors
from pa.errors import UsageError

Ints = npt.NDArray[np.int64]

BLOCK_BYTES = 64 << 20  # of cosines in memory; the unit vectors take 4·N·D bytes more
ROWS_NAMED = 5  # in a message: enough to find the cause


@dataclass(frozen=True, eq=False)
class UnitVectors:
    """Unit vectors (N, D), float32. Rows `copies` equal the earlier rows `originals`."""

    units: npt.NDArray[np.float32]  # (N, D)
    copies: Ints
    originals: Ints

    @classmethod
    def of(cls, features: npt.NDArray[Any], names: Ints | None = None) -> UnitVectors:
        """Scale features (N, D) to unit length.

        Raises `UsageError` if they are not (N, D), or contain NaN, infinity or a zero vector, which
        has no cosine. The error lists the rows, by `names` (N,) if given.
        """
        if features.ndim != 2 or 0 in features.shape:
            raise UsageError(f"features must be (rows, width), not {features.shape}.")
        names = np.arange(len(features)) if names is None else names
        _refuse(~np.isfinite(features).all(axis=1), "NaN or infinity", names)
        units = unit_vectors(features)  # (N, D), float32
        _refuse(~units.any(axis=1), "only zeros, which have no cosine,", names)
        # -0.0 becomes 0.0, so that equal vectors have equal bytes and equal digests.
        units += np.float32(0)
        first: dict[bytes, int] = {}  # digest of a vector -> its first row
        pairs = [
            (row, original)
            for row, vector in enumerate(units)
            if (original := first.setdefault(xxhash.xxh3_128_digest(vector.data), row)) != row
        ]
        copies, originals = np.array(pairs, dtype=np.int64).reshape(-1, 2).T  # (copies,) each
        return cls(units, copies, originals)

    def __len__(self) -> int:
        return len(self.units)

    def cosines(
        self, rows: slice | Ints, out: npt.NDArray[np.float32], *, sign: int = 1
    ) -> npt.NDArray[np.float32]:
        """Write the cosines of the queries at `rows` to all vectors into `out` (B, N).

        float32 throughout; they may exceed 1 by rounding. Equal vectors have equal cosines, which a
        matrix product alone does not guarantee. With `sign` -1 they are negated.
        """
        queries = self.units[rows]  # (B, D)
        np.matmul(queries if sign > 0 else -queries, self.units.T, out=out)
        # A product can round equal columns differently, by their place in a block. Average
        # precision depends on ties being exact.
        if len(self.copies):
            out[:, self.copies] = out[:, self.originals]
        return out

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the cosines of consecutive queries to all vectors: first query, (B, N) float32.

        The array is reused for the next block.
        """
        n = len(self)
        step = min(n, max(1, BLOCK_BYTES // (4 * n)))  # queries per block
        buffer = np.empty((step, n), dtype=np.float32)
        for start in range(0, n, step):
            stop = min(start + step, n)
            yield start, self.cosines(slice(start, stop), buffer[: stop - start])


def threads() -> int:
    """Return the number of threads: OMP_NUM_THREADS, or the cores this process may use."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    valid = configured.isdigit() and int(configured) > 0
    return int(configured) if valid else len(os.sched_getaffinity(0))


def _refuse(wrong: Any, what: str, names: Ints) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        shown = ", ".join(str(name) for name in names[rows[:ROWS_NAMED]])
        more = ", …" if len(rows) > ROWS_NAMED else ""
        raise UsageError(
            f"{len(rows)} of {len(names)} vectors contain {what} in row {shown}{more}. "
            f"`pa verify` checks a store; features that overflow fp16 need --storage fp32."
        )
