"""Where a shard's file stores its rows, and their checksums, kept after the first read.

Finding an array and reading its row checksums takes most of a small read. So it is done once for
each shard of an open store, as long as the file is the same one. No handle stays open: stores may
be read by many threads, and across a fork.

Shapes: n rows of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pa.data.store import shards
from pa.data.store.shards import RowChecksums

KEPT_BYTES = 1 << 30  # of the layouts of a store: 8 bytes a row, for 100 million rows and more
LAYOUT_BYTES = 1 << 9  # of one layout without its checksums, about


@dataclass(frozen=True)
class Layout:
    """The byte where the first row of an array is stored, and the checksums of its rows (n,)."""

    begin: int
    checksums: RowChecksums

    @property
    def bytes(self) -> int:
        return LAYOUT_BYTES + self.checksums.nbytes


class Layouts:
    """The layouts of the arrays of a store that were looked at so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[tuple[int, int, int], Layout]] = {}
        self._bytes = 0

    def of(self, path: Path, name: str, look: Callable[[], Layout]) -> Layout:
        """The layout of an array of the shard at `path`; `look` finds that of a file not yet seen.

        Raises `VerificationError` where the file does not exist, or what `look` raises.
        """
        try:
            found = path.stat()
        except FileNotFoundError:
            raise shards.damaged(path, "it is not there") from None
        except OSError as error:
            raise shards.damaged(path, error.strerror or str(error)) from None
        file = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._known.get((path.name, name))
        if known is not None and known[0] == file:
            return known[1]
        layout = look()
        # Threads may write at the same time: a layout that is lost is read again.
        if self._bytes + layout.bytes > KEPT_BYTES:
            self._known.clear()
            self._bytes = 0
        self._known[path.name, name] = file, layout
        self._bytes += layout.bytes
        return layout
