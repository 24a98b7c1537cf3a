"""Which shards this process takes, and the images to decode for them.

The next shard is taken while the last images of the one before are still being encoded, so that
decoding never stops at a border. One shard is held ahead and no more: others may want it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pa.data.store.shards import ShardPlan
from pa.data.views.base import View
from pa.extract.batches import image_jobs
from pa.extract.encoders.base import Encoder
from pa.extract.pixels import ImageJob
from pa.extract.share import PATIENCE, Share
from pa.extract.slots import Report
from pa.extract.writing import Claimed, ShardThread
from pa.progress import Progress

POLL_SECONDS = 0.5


class Claims:
    """Goes over the missing shards until none is left, or all are in the hands of others.

    Without a `share` it waits for those that other processes have, to take over from one that is
    killed. With one it leaves: a task that waits holds a GPU, and the array has a job after it.
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
        self._ahead: deque[tuple[Claimed, int]] = deque()

    def begun(self) -> tuple[Claimed, int]:
        """The shard whose first image has just been loaded, and how many images it has."""
        return self._ahead.popleft()

    def jobs(self, busy: Callable[[], bool]) -> Iterator[ImageJob | None]:
        """The images of the shards that this process takes, in order; see `Loader.ahead`.

        None while the next shard cannot be had yet and the loader is `busy` with others.
        """
        waited = False
        while left := self._missing():
            took, vain = False, 0
            for index in self._share.order(sorted(left)) if self._share else sorted(left):
                while self._ahead and busy():
                    yield None
                claim = self._thread.claim(self._pairs, left[index])
                while busy() and not claim.done():
                    yield None
                claimed = claim.result()
                if claimed is None:
                    vain += 1
                    if took and vain == PATIENCE:
                        break
                    continue
                took, vain = True, 0
                jobs = image_jobs(claimed.targets[0].report.store, claimed.shard, self._view)
                self._ahead.append((claimed, len(jobs)))
                yield from jobs
            while busy():
                yield None
            self._thread.flush()
            if took:
                continue
            if self._share:
                self._progress.note(
                    f"{len(left)} shards are in the hands of other tasks: left to them"
                )
                return
            if not waited:
                self._progress.note(
                    f"{len(left)} shards are in the hands of other processes: waiting"
                )
                waited = True
            time.sleep(POLL_SECONDS)

    def _missing(self) -> dict[int, ShardPlan]:
        return {s.index: s for _, report in self._pairs for s in report.store.missing()}
