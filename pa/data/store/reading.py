"""Reading rows of one shard without HDF5.

The manifest states where the arrays of a shard begin and their checksums, so HDF5 opens no file of
a complete store: damaged HDF5 structures can make that library loop forever. Every row that is
read is compared with its checksum, and the row checksums with the manifest.

Shapes: n rows of the shard, m requested rows, b bytes of a row.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store import shards
from pa.data.store.manifest import ShardEntry
from pa.data.store.shards import ROW_CHECKSUM, ROW_CHECKSUMS, RowChecksums, ShardInfo, ShardPlan

Ints = npt.NDArray[np.int64]

CACHE_BYTES = 1 << 30  # 8 bytes a row: enough for 100 million rows
ENTRY_BYTES = 1 << 9  # approximate size of an entry without its checksums
GAP_READ = 1 << 18  # bytes: a smaller gap between rows is read and dropped, faster than a seek
ROWS_READ = 256  # per read; with a gap after each still below POSIX's limit of 1024 buffers


@dataclass(frozen=True)
class ArrayOffset:
    """The byte at which the first row of an array begins, and the checksums of its rows (n,)."""

    begin: int
    checksums: RowChecksums


class OffsetCache:
    """The offsets of all arrays of a store that were read so far.

    Finding an array and reading its row checksums takes most of the time of a small read. No handle
    stays open: threads and forked processes share a store.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[tuple[int, int, int], ArrayOffset]] = {}
        self._bytes = 0

    def get(self, path: Path, name: str, find: Callable[[], ArrayOffset]) -> ArrayOffset:
        """Return the offset of an array of the shard at `path`; call `find` for an unknown file.

        Raises `VerificationError` if the file does not exist, and what `find` raises.
        """
        try:
            status = path.stat()
        except FileNotFoundError:
            raise shards.damaged(path, "it does not exist") from None
        except OSError as error:
            raise shards.damaged(path, error.strerror or str(error)) from None
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        cached = self._entries.get((path.name, name))
        if cached is not None and cached[0] == identity:
            return cached[1]
        offset = find()
        n_bytes = ENTRY_BYTES + offset.checksums.nbytes
        # Threads may write at the same time: an entry that is lost is found again.
        if self._bytes + n_bytes > CACHE_BYTES:
            self._entries.clear()
            self._bytes = 0
        self._entries[path.name, name] = identity, offset
        self._bytes += n_bytes
        return offset


def find_offset(path: Path, shard: ShardPlan, name: str, entry: ShardEntry | None) -> ArrayOffset:
    """Return where an array of a shard begins, and its row checksums.

    `entry` is the shard's entry of the manifest; without it, the attributes of the shard are used.
    Raises `VerificationError` if the file does not agree with it.
    """
    source: ShardEntry | ShardInfo
    if entry is not None:
        # Comparing the size reads no data; the bytes are compared when they are read.
        if (reason := entry.file_checksum.difference(path, full=False)) is not None:
            raise shards.damaged(path, reason)
        source = entry
    else:
        source = info = shards.read_info(path)
        if (info.first_row, info.n_rows) != (shard.start, shard.n_rows):
            actual, expected = f"{info.first_row}+{info.n_rows}", f"{shard.start}+{shard.n_rows}"
            raise shards.damaged(path, f"it holds rows {actual}, not {expected}")
    try:
        begin, begin_checksums = source.offsets[name], source.offsets[name + ROW_CHECKSUMS]
        expected = source.checksums[name]
    except KeyError as error:
        raise shards.damaged(path, f"it has no array {error}") from None
    rows = np.empty((1, shard.n_rows), ROW_CHECKSUM)  # (1, n): read as one long row
    read_pieces(path, np.array([begin_checksums]), rows.view(np.uint8), np.zeros(1, np.int64))
    if shards.array_checksum(rows[0]) != expected:
        raise shards.damaged(path, f"the checksums of the rows of {name} do not match the manifest")
    return ArrayOffset(begin, rows[0])


def read_rows(
    path: Path,
    shard: ShardPlan,
    name: str,
    offset: ArrayOffset,
    local: Ints,
    out: npt.NDArray[Any],
    positions: Ints,
) -> None:
    """Read the rows `local` (m,) of an array in a shard to `positions` (m,) of `out`.

    Raises `VerificationError` if the file cannot be read or a row does not match its checksum.
    """
    row_bytes = out.itemsize * math.prod(out.shape[1:])
    as_bytes = out.reshape(len(out), -1).view(np.uint8)  # (len(out), b)
    read_pieces(path, offset.begin + local * row_bytes, as_bytes, positions)
    changed = shards.row_checksums(out, positions.tolist()) != offset.checksums[local]  # (m,)
    if changed.any():
        row = shard.start + int(local[changed.argmax()])
        raise shards.damaged(
            path,
            f"{name}: {int(changed.sum())} of {len(local)} rows read have changed since they were "
            f"written, such as row {row}",
        )


def read_pieces(path: Path, offsets: Ints, out: npt.NDArray[np.uint8], positions: Ints) -> None:
    """Read b bytes at each of `offsets` (m,) of a file to `positions` (m,) of `out` (N, b).

    The kernel distributes one sequential read over the positions (`preadv`, POSIX), so nothing is
    copied twice and the interpreter lock is released: a thread that reads ahead does not block the
    one that computes, as HDF5's own reader would with its global lock.
    """
    width = out.shape[1]
    order = np.argsort(offsets, kind="stable")  # (m,) in the order of the file
    waste = np.empty(GAP_READ, dtype=np.uint8)  # receives the bytes of gaps
    distances = np.diff(offsets[order]) - width  # bytes between neighbours; < 0: a row twice
    cuts = np.flatnonzero((distances < 0) | (distances > GAP_READ)) + 1
    spans = itertools.pairwise([0, *cuts.tolist(), len(order)])
    chunks = [
        order[start : min(start + ROWS_READ, last)]
        for first, last in spans
        for start in range(first, last, ROWS_READ)
    ]
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            for chosen in chunks:
                at, to = offsets[chosen], positions[chosen]
                gaps = np.diff(at) - width
                buffers: list[Any] = []
                # Rows that are adjacent in the file and in memory are one buffer.
                ends = np.append(np.flatnonzero((gaps != 0) | (np.diff(to) != 1)) + 1, len(chosen))
                first = 0
                for end in ends.tolist():
                    buffers.append(out[to[first] : to[first] + end - first].reshape(-1).data)
                    if end < len(chosen) and gaps[end - 1]:
                        buffers.append(waste[: gaps[end - 1]].data)
                    first = end
                _fill(descriptor, buffers, int(at[0]))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise shards.damaged(path, str(error)) from None


def _fill(descriptor: int, buffers: list[Any], offset: int) -> None:
    """Fill all buffers from `offset` on; one call may read less than requested."""
    while buffers:
        n_read = os.preadv(descriptor, buffers, offset)  # one system call for all buffers
        if n_read == 0:
            raise OSError(f"it ends at byte {offset}, in the middle of its data")
        offset += n_read
        while buffers and n_read >= len(buffers[0]):
            n_read -= len(buffers[0])
            buffers.pop(0)
        if n_read:
            buffers[0] = buffers[0][n_read:]
