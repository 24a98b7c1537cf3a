"""A store that answers many small reads: what a server does, and one command line does not.

`Store.read` opens every shard it needs, checks it, and closes it again; for one query, whose
candidates lie in as many shards, that is nearly all the time it takes. Here a shard is checked when
it is first read, where its vectors begin is kept, and from then on they are read from there for as
long as the file is the same one. No file stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data import reading, scatter, shards
from pa.data.shards import ShardPlan
from pa.data.spec import Spec
from pa.data.store import Store

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Checked:
    """A shard that was found right: which file it was, and where its arrays begin, in bytes.

    An array that does not lie in one piece has no offset.
    """

    file: tuple[int, int, int]
    offsets: dict[str, int | None]


class ServedStore(Store):
    """Gives the same bytes as `Store`. Safe to read from many threads at once.

    A `twin` is a store of the same rows (their digests are equal): its table in memory serves both.
    """

    twin: ServedStore | None = None

    def __init__(self, path: Path, spec: Spec, shard_rows: int, source: dict[str, Any]) -> None:
        super().__init__(path, spec, shard_rows, source)
        self._checked: dict[str, _Checked] = {}

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The table of rows; see `Store.rows`."""
        return super().rows if self.twin is None else self.twin.rows

    def read(
        self, representation: str, rows: Sequence[int] | Ints | None = None
    ) -> npt.NDArray[Any]:
        """Read vectors by row number, in the order asked for; see `Store.read`."""
        if rows is None or len(self.shape(representation)) != 1:
            return super().read(representation, rows)
        wanted = np.asarray(rows, dtype=np.int64)
        reading.check_rows(self, wanted)
        out = reading.empty(self, representation, len(wanted))
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(shard_of).tolist():
            places = np.flatnonzero(shard_of == number)
            self._read_shard(self.plan[number], representation, wanted[places], out, places)
        return reading.from_disk(self, out)

    @cached_property
    def _starts(self) -> Ints:
        return np.array([shard.start for shard in self.plan], dtype=np.int64)

    def _read_shard(
        self,
        shard: ShardPlan,
        representation: str,
        rows: Ints,
        out: npt.NDArray[Any],
        places: Ints,
    ) -> None:
        """Read `rows` of one shard to `places` of `out`."""
        path = self.shard_path(shard)
        offset = self._check(shard).offsets[representation]
        if offset is None:
            reading.read_into(self, representation, rows, out, places)
            return
        as_bytes = out.view(np.uint8).reshape(len(out), -1)
        try:
            scatter.read(path, offset + (rows - shard.start) * as_bytes.shape[1], as_bytes, places)
        except OSError as error:
            raise shards.damaged(path, str(error)) from None

    def _check(self, shard: ShardPlan) -> _Checked:
        """What is known of a shard; it is opened where its file was never seen."""
        path = self.shard_path(shard)
        try:
            found = path.stat()
        except OSError as error:
            raise shards.damaged(path, error.strerror or str(error)) from None
        file = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._checked.get(shard.name)
        if known is None or known.file != file:
            with reading.opened(self, shard) as opened:
                offsets = {name: opened[name].id.get_offset() for name in self.spec.representations}
            known = self._checked[shard.name] = _Checked(file, offsets)
        return known
