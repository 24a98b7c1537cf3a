"""Features larger than memory, in batches: large sequential reads in a random order.

Patch tokens of a large split do not fit in memory, and reading them at random is slow. The order is
therefore block-shuffled: rows are divided into blocks of neighbours, the blocks are permuted, and
several blocks at a time fill a buffer, inside which the rows are permuted. The order depends only
on the seed, the epoch, the number of rows and the two sizes, so a run that keeps its features in
memory and one that streams them visit the same rows in the same order.

One buffer is used while a thread fills the other; a stream takes no other memory.

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

BLOCK_ROWS = 256  # neighbours read at once: large enough for sequential speed
BUFFER_ROWS = 2048  # 8 blocks: permuted together, so that a batch mixes distant rows
READ_ROWS = 256  # rows of a buffer in the order of the rows


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
        """Return the rows 0 to n − 1, each once, as they fill the buffers in turn."""
        draw = np.random.default_rng([self.seed, epoch])  # another order in every epoch
        starts = draw.permutation(np.arange(0, n_rows, self.block_rows))  # first rows of the blocks
        at_once = -(-self.buffer_rows // self.block_rows)  # blocks per buffer, rounded up
        buffers = []
        for first in range(0, len(starts), at_once):
            chosen = starts[first : first + at_once].tolist()  # the last block may be smaller
            blocks = [np.arange(a, min(a + self.block_rows, n_rows)) for a in chosen]
            buffers.append(draw.permutation(np.concatenate(blocks)))
        return buffers

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def in_order(n_rows: int, buffer_rows: int = READ_ROWS) -> list[Ints]:
    """Return the rows in their order, as buffers."""
    return [
        np.arange(start, min(start + buffer_rows, n_rows))
        for start in range(0, n_rows, buffer_rows)
    ]


class Stream:
    """Rows of one representation of a store, batch by batch.

    `rows` (n,) are row ids; a batch refers to its rows by their positions in it, 0 to n − 1.
    Features that take at most `memory` bytes as stored are read once and kept.
    """

    def __init__(self, store: Store, representation: str, rows: Ints, *, memory: float = 0) -> None:
        self.store = store
        self.representation = representation
        self.rows = rows
        self.row_bytes = store.empty(representation, 1).nbytes
        self.is_kept = self.row_bytes * len(rows) <= memory
        self._kept: npt.NDArray[Any] | None = None
        self._spare: list[npt.NDArray[Any]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def held_bytes(self, buffer_rows: int) -> int:
        """Return the bytes of features in memory, all kept ones or two buffers, without a batch."""
        return self.row_bytes * (len(self) if self.is_kept else 2 * min(buffer_rows, len(self)))

    def batches(
        self, buffers: Sequence[Ints], batch: int
    ) -> Generator[tuple[Ints, npt.NDArray[Any]], None, None]:
        """Divide the concatenated buffers into batches: positions (B,) and features (B, *shape).

        The last batch may be smaller. The next batch overwrites the features. Raises what
        `Store.read` raises.
        """
        if self.is_kept:
            if self._kept is None:
                self._kept = self._read(np.arange(len(self)), self._memory(len(self)))
            order = np.concatenate(buffers) if len(buffers) else np.empty(0, np.int64)
            for start in range(0, len(order), batch):
                positions = order[start : start + batch]
                yield positions, self.store.from_disk(self._kept[positions])
            return
        waiting: list[tuple[Ints, npt.NDArray[Any]]] = []
        n_waiting = 0
        for positions, features in self._filled(buffers):
            start = 0
            while start < len(positions):
                stop = min(start + batch - n_waiting, len(positions))
                piece = positions[start:stop], features[start:stop]
                start = stop
                if n_waiting == 0 and len(piece[0]) == batch:
                    yield piece[0], self.store.from_disk(piece[1])
                    continue
                # The buffer is filled again before the rest of this batch arrives: copy.
                waiting.append((piece[0], piece[1].copy()))
                n_waiting += len(piece[0])
                if n_waiting == batch:
                    yield self._joined(waiting)
                    waiting, n_waiting = [], 0
        if waiting:
            yield self._joined(waiting)

    def _joined(self, pieces: list[tuple[Ints, npt.NDArray[Any]]]) -> tuple[Ints, npt.NDArray[Any]]:
        positions = np.concatenate([piece[0] for piece in pieces])  # (B,)
        features = np.concatenate([piece[1] for piece in pieces])  # (B, *shape)
        return positions, self.store.from_disk(features)

    def _filled(self, buffers: Sequence[Ints]) -> Iterator[tuple[Ints, npt.NDArray[Any]]]:
        """Yield each buffer with its features, valid until the next one."""
        largest = max(map(len, buffers), default=0)
        memories = [self._memory(largest), self._memory(largest)]
        with ThreadPoolExecutor(1, thread_name_prefix="pa-stream") as pool:
            try:
                current = None
                # One buffer is filled while the caller uses the other.
                for number, positions in enumerate([*buffers, None]):
                    following = None
                    if positions is not None:
                        following = pool.submit(self._read, positions, memories[number % 2])
                    if current is not None:
                        yield buffers[number - 1], current.result()
                    current = following
            finally:
                pool.shutdown(cancel_futures=True)
                self._spare = memories

    def _memory(self, n: int) -> npt.NDArray[Any]:
        """Return memory for n rows: that of the last epoch, if it is large enough."""
        while self._spare:
            if len(spare := self._spare.pop()) >= n:
                return spare
        return self.store.empty(self.representation, n)

    def _read(self, positions: Ints, memory: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # Read in the order of the file, place in the order of the buffer.
        order = np.argsort(self.rows[positions], kind="stable")  # (n,)
        self.store.read_into(self.representation, self.rows[positions][order], memory, order)
        return memory[: len(positions)]
