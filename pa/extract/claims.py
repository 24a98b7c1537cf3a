"""Claim the shards that this process encodes, and list the images to decode for them.

The next shard is claimed while the last images of the current one are encoded, so that decoding
does not stop between shards. Only one shard is held ahead, to leave the others to other processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pa.data.views.base import View
from pa.extract.encoders.base import Encoder
from pa.extract.pixels import ImageJob, image_jobs
from pa.extract.share import MAX_MISSES, Share
from pa.extract.stores import Report
from pa.extract.writing import Claimed, ShardThread
from pa.progress import Progress

POLL_SECONDS = 0.5  # between attempts to claim shards that other processes hold


class Claims:
    """Claim missing shards until none is left, or other processes hold all of them.

    Without a `share` it waits for the shards of other processes, to replace one that is killed.
    With a share it returns: a waiting task occupies a GPU, and a job after the array finishes.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Encoder, Report]],
        view: View,
        thread: ShardThread,
        progress: Progress,
        share: Share | None,
    ) -> None:
        self._pairs = pairs
        self._view = view
        self._thread = thread
        self._progress = progress
        self._share = share
        self._ahead: deque[tuple[Claimed, int]] = deque()  # shards with their number of images

    def begun(self) -> tuple[Claimed, int]:
        """Return the shard whose first image has just been loaded, and its number of images."""
        return self._ahead.popleft()

    def jobs(self, busy: Callable[[], bool]) -> Iterator[ImageJob | None]:
        """Yield the images of the claimed shards in order; see `Loader.ahead`.

        Yield None while the next shard is not claimed yet and the loader is `busy`.
        """
        waited = False  # whether the note about waiting was printed
        while left := {s.index: s for _, report in self._pairs for s in report.store.missing()}:
            took, misses = False, 0  # misses: consecutive shards that could not be claimed
            for index in self._share.order(sorted(left)) if self._share else sorted(left):
                while self._ahead and busy():  # hold one shard ahead at most
                    yield None
                claim = self._thread.claim(self._pairs, left[index])
                while busy() and not claim.done():
                    yield None
                claimed = claim.result()
                if claimed is None:
                    misses += 1
                    if took and misses == MAX_MISSES:
                        break  # list the missing shards again
                    continue
                took, misses = True, 0
                store, shard = claimed.targets[0].report.store, claimed.shard
                jobs = image_jobs(store.rows.slice(shard.start, shard.n_rows), self._view)
                self._ahead.append((claimed, len(jobs)))
                yield from jobs
            while busy():
                yield None
            self._thread.flush()  # the last shards are closed before missing ones are listed
            if took:
                continue
            if self._share:
                self._progress.note(f"skipping {len(left)} shards locked by other tasks")
                return
            if not waited:
                self._progress.note(f"waiting for {len(left)} shards locked by other processes")
                waited = True
            time.sleep(POLL_SECONDS)
