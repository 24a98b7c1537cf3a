"""Cache of the byte offsets and row checksums of the arrays in the shards of an open store.

Finding an array and reading its row checksums takes most of the time of a small read, so it is done
once per shard while the file stays the same. No handle stays open: threads and forked processes
share a store.

Shapes: n rows of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pa.data.store import shards
from pa.data.store.shards import RowChecksums

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
    """The offsets of all arrays of a store that were read so far."""

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
