"""Features larger than memory, in batches: large sequential reads, and an order that is random.

Patch tokens of a large split do not fit in memory, and reading them at random is slow. So the
order is block-shuffled: the rows are cut into blocks of neighbours, the blocks are permuted, and
several blocks at a time fill a buffer, inside which the rows are permuted. It depends on the seed,
the epoch, the number of rows and the two sizes alone, not on what fits in memory: a run that keeps
its features and one that streams them visit the same rows in the same order.

One buffer is worked on while a thread fills the other; that is all the memory a stream takes.

Shapes: n rows of the stream, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store.reader import Store
from pa.errors import UsageError

Ints = npt.NDArray[np.int64]

BLOCK_ROWS = 256
BUFFER_ROWS = 2048
READ_ROWS = 256  # rows of a buffer where the order is that of the rows


@dataclass(frozen=True)
class BlockShuffle:
    """The order of rows in each epoch. `buffer_rows` are permuted at a time, rounded up to whole
    blocks of `block_rows`; a stream of fewer rows is permuted as a whole."""

    seed: int = 0
    block_rows: int = BLOCK_ROWS
    buffer_rows: int = BUFFER_ROWS

    def __post_init__(self) -> None:
        if self.block_rows < 1 or self.buffer_rows < 1 or self.seed < 0:
            raise UsageError(
                f"a block and a buffer hold 1 row or more and the seed is not negative, not "
                f"{self.block_rows}, {self.buffer_rows} and {self.seed}."
            )

    def buffers(self, n_rows: int, epoch: int) -> list[Ints]:
        """The rows 0 to n − 1, each once, as they fill one buffer after the other."""
        draw = np.random.default_rng([self.seed, epoch])
        starts = draw.permutation(np.arange(0, n_rows, self.block_rows))
        at_once = -(-self.buffer_rows // self.block_rows)
        return [
            draw.permutation(self._rows(starts[first : first + at_once], n_rows))
            for first in range(0, len(starts), at_once)
        ]

    def _rows(self, starts: Ints, n_rows: int) -> Ints:
        ends = np.minimum(starts + self.block_rows, n_rows)
        return np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def in_order(n_rows: int, buffer_rows: int = READ_ROWS) -> list[Ints]:
    """The rows as they come, as buffers."""
    return [
        np.arange(start, min(start + buffer_rows, n_rows))
        for start in range(0, n_rows, buffer_rows)
    ]


class Stream:
    """Some rows of one representation of a store, batch after batch.

    `rows` (n,) are row ids; a batch tells its rows by their places in it, 0 to n − 1. Features that
    take no more than `memory` bytes as stored are read once and kept.
    """

    def __init__(self, store: Store, representation: str, rows: Ints, *, memory: float = 0) -> None:
        self.store = store
        self.representation = representation
        self.rows = rows
        one = store.empty(representation, 1)
        self.row_bytes = one.nbytes
        self.is_kept = self.row_bytes * len(rows) <= memory
        self._kept: npt.NDArray[Any] | None = None
        self._spare: list[npt.NDArray[Any]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def held_bytes(self, buffer_rows: int) -> int:
        """Bytes of features in memory: all that are kept, or two buffers. A batch comes on top."""
        return self.row_bytes * (len(self) if self.is_kept else 2 * min(buffer_rows, len(self)))

    def batches(
        self, buffers: Sequence[Ints], batch: int
    ) -> Generator[tuple[Ints, npt.NDArray[Any]], None, None]:
        """Cut the buffers, laid end to end, into batches: places (B,) and features (B, *shape).

        The last batch may be smaller. The features are overwritten when the next batch is asked
        for. Raises what `Store.read` raises.
        """
        if self.is_kept:
            yield from self._from_memory(buffers, batch)
            return
        waiting: list[tuple[Ints, npt.NDArray[Any]]] = []
        n_waiting = 0
        for places, features in self._filled(buffers):
            start = 0
            while start < len(places):
                stop = min(start + batch - n_waiting, len(places))
                piece = places[start:stop], features[start:stop]
                start = stop
                if n_waiting == 0 and len(piece[0]) == batch:
                    yield self._batch([piece])
                    continue
                # The buffer is filled anew before the rest of this batch is there.
                waiting.append((piece[0], piece[1].copy()))
                n_waiting += len(piece[0])
                if n_waiting == batch:
                    yield self._batch(waiting)
                    waiting, n_waiting = [], 0
        if waiting:
            yield self._batch(waiting)

    def _batch(self, pieces: list[tuple[Ints, npt.NDArray[Any]]]) -> tuple[Ints, npt.NDArray[Any]]:
        if len(pieces) == 1:
            places, features = pieces[0]
        else:
            places = np.concatenate([piece[0] for piece in pieces])
            features = np.concatenate([piece[1] for piece in pieces])
        return places, self.store.from_disk(features)

    def _from_memory(
        self, buffers: Sequence[Ints], batch: int
    ) -> Iterator[tuple[Ints, npt.NDArray[Any]]]:
        if self._kept is None:
            self._kept = self._read(np.arange(len(self)), self._memory(len(self)))
        order = np.concatenate(buffers) if len(buffers) else np.empty(0, np.int64)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            yield places, self.store.from_disk(self._kept[places])

    def _filled(self, buffers: Sequence[Ints]) -> Iterator[tuple[Ints, npt.NDArray[Any]]]:
        """Each buffer with its features, valid until the next one."""
        with ThreadPoolExecutor(1, thread_name_prefix="pa-stream") as pool:
            largest = max(map(len, buffers), default=0)
            memories = [self._memory(largest), self._memory(largest)]
            try:
                coming = None
                for number, places in enumerate([*buffers, None]):
                    following = None
                    if places is not None:
                        following = pool.submit(self._read, places, memories[number % 2])
                    if coming is not None:
                        yield buffers[number - 1], coming.result()
                    coming = following
            finally:
                pool.shutdown(cancel_futures=True)
                self._spare = memories

    def _memory(self, n: int) -> npt.NDArray[Any]:
        """Memory for n rows: that of the last epoch, where it is large enough."""
        while self._spare:
            if len(spare := self._spare.pop()) >= n:
                return spare
        return self.store.empty(self.representation, n)

    def _read(self, places: Ints, memory: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # Read in the order of the file, put in the order of the buffer.
        order = np.argsort(self.rows[places], kind="stable")
        rows = self.rows[places][order]
        self.store.read_into(self.representation, rows, memory, order)
        return memory[: len(places)]
