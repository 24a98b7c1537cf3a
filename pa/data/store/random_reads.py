"""Read many pieces of equal length of a file into given positions, by few large reads.

The kernel distributes one sequential read over the positions (`preadv`, POSIX), so nothing is
copied twice and the interpreter lock is released: a thread that reads ahead does not block the one
that computes, as HDF5's own reader would with its global lock.

Shapes: n pieces of b bytes each.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

GAP_READ = 1 << 18  # bytes: a smaller gap between pieces is read and dropped, faster than a seek
PIECES = 256  # per read; with a gap after each still below POSIX's limit of 1024 buffers


def read(
    path: Path,
    offsets: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    positions: npt.NDArray[np.int64],
) -> None:
    """Read the pieces at `offsets` (n,) of a file to `positions` (n,) of `out` (N, b).

    Raise `OSError` if the file ends before a piece does.
    """
    order = np.argsort(offsets, kind="stable")  # (n,) in the order of the file
    waste = np.empty(GAP_READ, dtype=np.uint8)  # receives the bytes of gaps
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for span in _spans(offsets[order], out.shape[1]):
            chosen = order[span]
            at, to = offsets[chosen], positions[chosen]
            gaps = np.diff(at) - out.shape[1]  # bytes between neighbours
            buffers: list[Any] = []
            # Pieces that are adjacent in the file and in memory are one buffer.
            ends = np.append(np.flatnonzero((gaps != 0) | (np.diff(to) != 1)) + 1, len(chosen))
            first = 0
            for end in ends.tolist():
                buffers.append(out[to[first] : to[first] + end - first].reshape(-1).data)
                if end < len(chosen) and gaps[end - 1]:
                    buffers.append(waste[: gaps[end - 1]].data)
                first = end
            _read_all(descriptor, buffers, int(at[0]), path)
    finally:
        os.close(descriptor)


def _spans(offsets: npt.NDArray[np.int64], length: int) -> Iterator[slice]:
    """Yield the slices of sorted pieces for one read: near each other, none twice, not too many."""
    gaps = np.diff(offsets) - length  # bytes between neighbours
    cuts = [0, *(np.flatnonzero((gaps < 0) | (gaps > GAP_READ)) + 1).tolist(), len(offsets)]
    for first, last in itertools.pairwise(cuts):
        for start in range(first, last, PIECES):
            yield slice(start, min(start + PIECES, last))


def _read_all(descriptor: int, buffers: list[Any], offset: int, path: Path) -> None:
    """Fill all buffers; one call may read less than requested."""
    while buffers:
        n_read = os.preadv(descriptor, buffers, offset)  # one system call for all buffers
        if n_read == 0:
            raise OSError(f"{path} ends at byte {offset}, in the middle of its data")
        offset += n_read
        while buffers and n_read >= len(buffers[0]):
            n_read -= len(buffers[0])
            buffers.pop(0)
        if n_read:
            buffers[0] = buffers[0][n_read:]
