"""Reading rows of one shard without HDF5.

The manifest states where the arrays of a shard begin and their checksums, so HDF5 opens no file of
a complete store: damaged HDF5 structures can make that library loop forever. Every row that is
read is compared with its checksum, and the row checksums with the manifest.

Shapes: n rows of the shard, m requested rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store import random_reads, shards
from pa.data.store.manifest import ShardEntry
from pa.data.store.shards import ROW_CHECKSUM, ROW_CHECKSUMS, RowChecksums, ShardPlan

Ints = npt.NDArray[np.int64]

CACHE_BYTES = 1 << 30  # 8 bytes a row: enough for 100 million rows
ENTRY_BYTES = 1 << 9  # approximate size of an entry without its checksums


@dataclass(frozen=True)
class ArrayOffset:
    """The byte at which the first row of an array begins, and the checksums of its rows (n,)."""

    begin: int
    checksums: RowChecksums

    @property
    def bytes(self) -> int:
        return ENTRY_BYTES + self.checksums.nbytes


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
        # Threads may write at the same time: an entry that is lost is found again.
        if self._bytes + offset.bytes > CACHE_BYTES:
            self._entries.clear()
            self._bytes = 0
        self._entries[path.name, name] = identity, offset
        self._bytes += offset.bytes
        return offset


def find_offset(path: Path, shard: ShardPlan, name: str, entry: ShardEntry | None) -> ArrayOffset:
    """Return where an array of a shard begins, and its row checksums.

    `entry` is the shard's entry of the manifest; without it, the attributes of the shard are used.
    Raises `VerificationError` if the file does not agree with it.
    """
    if entry is not None:
        # Comparing the size reads no data; the bytes are compared when they are read.
        if (reason := entry.file.difference(path, full=False)) is not None:
            raise shards.damaged(path, reason)
        offsets, checksums = entry.offsets, entry.checksums
    else:
        info = shards.read_info(path)
        if (info.first_row, info.n_rows) != (shard.start, shard.n_rows):
            expected = f"{shard.start}+{shard.n_rows}"
            raise shards.damaged(
                path, f"it holds rows {info.first_row}+{info.n_rows}, not {expected}"
            )
        offsets, checksums = info.offsets, info.checksums
    try:
        begin, begin_checksums = offsets[name], offsets[name + ROW_CHECKSUMS]
        expected = checksums[name]
    except KeyError as error:
        raise shards.damaged(path, f"it has no array {error}") from None
    rows = np.empty((1, shard.n_rows), ROW_CHECKSUM)  # (1, n): one piece of the file
    try:
        random_reads.read(
            path, np.array([begin_checksums]), rows.view(np.uint8), np.zeros(1, np.int64)
        )
    except OSError as error:
        raise shards.damaged(path, str(error)) from None
    if shards.array_checksum(rows[0]) != expected:
        raise shards.damaged(path, f"the row checksums of {name} are not the manifest's")
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
    as_bytes = out.reshape(len(out), -1).view(np.uint8)  # (len(out), row_bytes)
    try:
        random_reads.read(path, offset.begin + local * row_bytes, as_bytes, positions)
    except OSError as error:
        raise shards.damaged(path, str(error)) from None
    changed = shards.row_checksums(out, positions.tolist()) != offset.checksums[local]
    if changed.any():
        row = shard.start + int(local[changed.argmax()])
        raise shards.damaged(
            path,
            f"{name}: {int(changed.sum())} of {len(local)} rows read have changed since they were "
            f"written, such as row {row}",
        )
