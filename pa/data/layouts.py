"""Where the rows of a shard lie in its file, kept from the first look on.

Opening a shard through HDF5 and making sure that it is the right one takes most of a small read. So
it is done once for each shard of an open store, and from then on rows are read past HDF5, from
where they were found, as long as the file is the same one. No handle stays open: stores may be read
by many threads, and across a fork.

Shapes: n rows of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data import shards

Ints = npt.NDArray[np.int64]

KEPT_BYTES = 1 << 26  # of layouts in one store; what they take beyond it is looked up again
USUAL_BYTES = 1 << 9  # of one whose rows lie side by side, about


@dataclass(frozen=True)
class Layout:
    """The file that was looked at, and where the rows of one of its arrays begin.

    `begins` (n,) in bytes, or the first where they lie side by side; None for an array that is not
    kept as plain bytes, which only HDF5 can read.
    """

    file: tuple[int, int, int]
    begins: Ints | int | None

    @property
    def bytes(self) -> int:
        return USUAL_BYTES + (self.begins.nbytes if isinstance(self.begins, np.ndarray) else 0)

    def offsets(self, rows: Ints, row_bytes: int) -> Ints | None:
        """Where in the file the rows begin, by their numbers in the shard."""
        if self.begins is None or isinstance(self.begins, np.ndarray):
            return None if self.begins is None else self.begins[rows]
        return self.begins + rows * row_bytes


class Layouts:
    """The layouts of a store's arrays that were looked at so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Layout] = {}
        self._bytes = 0

    def of(
        self, path: Path, name: str, opened: Callable[[], AbstractContextManager[Any]]
    ) -> Layout:
        """The layout of an array of the shard at `path`, which is `opened` where that file was
        never seen.

        Raises `VerificationError` where it is not there, or what `opened` raises.
        """
        try:
            found = path.stat()
        except FileNotFoundError:
            raise shards.damaged(path, "it is not there") from None
        except OSError as error:
            raise shards.damaged(path, error.strerror or str(error)) from None
        file = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._known.get((path.name, name))
        if known is None or known.file != file:
            with opened() as shard:
                known = Layout(file, shards.begins(shard[name]))
            # Threads may meet here: a layout that is lost is looked up again.
            if self._bytes + known.bytes > KEPT_BYTES:
                self._known.clear()
                self._bytes = 0
            self._known[path.name, name] = known
            self._bytes += known.bytes
        return known
