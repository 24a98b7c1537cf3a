"""Claim, write and close shards in a thread, in parallel with the forward passes.

One thread performs all steps of a shard on disk, from the lock to the rename: a lock belongs to the
thread that acquired it, and signals arrive in the main thread only.

M: images of a shard, n: rows of a batch, v: valid rows among them.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pa.data.store.image_files import Status, status_array
from pa.data.store.shards import ShardPlan, ShardWriter
from pa.data.store.writer import claim
from pa.extract.encoding import Pending, spread
from pa.extract.pixels import ImageJob, Loaded, Stages
from pa.extract.stores import Report

PENDING_BATCHES = 2  # encoded batches that wait to be written; more only use memory


@dataclass(eq=False)
class Claimed:
    """A shard that this process holds, in each store in which it was missing and not locked."""

    shard: ShardPlan
    targets: list[tuple[Report, ShardWriter]] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # locks and files
    jobs: list[ImageJob] = field(default_factory=list)  # the M images to decode
    status: list[Status | None] = field(default_factory=list)  # of the image files

    def noting(self, images: Iterable[Loaded]) -> Iterator[Loaded]:
        """Yield the images of the shard and record the state of each file."""
        for image in images:
            self.status.append(image.status)
            yield image


class AbandonedError(Exception):
    """Raised inside the clean-up of a shard when the run ends before the shard."""


class ShardThread:
    """Claim, write and close shards, one step after the other.

    The first error stops all later steps and is raised by a later call. Leaving the block waits for
    the queued steps and removes the files of shards that are not closed.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pa-write")
        # Without a limit, features of a fast GPU would fill the memory while a slow disk writes.
        self._room = threading.Semaphore(PENDING_BATCHES)
        self._open: list[Claimed] = []  # claimed and not closed
        self._steps: deque[Future[None]] = deque()  # whose errors have not been raised yet
        self._failed = False

    def __enter__(self) -> ShardThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.submit(self._abandon_open)
        self._pool.shutdown(wait=True)

    def claim(self, reports: Sequence[Report], shard: ShardPlan) -> Future[Claimed | None]:
        """Claim a shard in each store in which it is missing and not locked; None without any."""
        self._raise_errors()
        return self._pool.submit(self._claim, reports, shard)

    def append(
        self,
        claimed: Claimed,
        target: tuple[Report, ShardWriter],
        features: Pending,
        valid: npt.NDArray[np.bool_],
    ) -> None:
        """Write the next rows (n,) of a shard once their features arrive.

        Block while too many batches wait to be written.
        """
        report, writer = target

        def write() -> None:
            with self._stages.timed("encode"):
                arrays = features.arrays()  # (v, …) each
            with self._stages.timed("write"):
                writer.append(spread(arrays, valid, report.store.spec.representations), valid)
            report.rows_encoded += len(valid)

        self._room.acquire()
        self._submit(claimed, write).add_done_callback(lambda _: self._room.release())
        self._raise_errors()

    def close(self, claimed: Claimed) -> None:
        """Check, sync and rename a shard that has all its rows, and release it."""

        def rename() -> None:
            # Removed first: if closing fails, nothing is left to abandon.
            self._open.remove(claimed)
            with self._stages.timed("write"):
                claimed.held.close()
                for report, _ in claimed.targets:
                    report.wrote(claimed.shard, status_array(claimed.status))

        self._submit(claimed, rename)
        self._raise_errors()

    def flush(self) -> None:
        """Wait for all queued steps."""
        while self._steps:
            self._steps.popleft().result()

    def _raise_errors(self) -> None:
        while self._steps and self._steps[0].done():
            self._steps.popleft().result()

    def _submit(self, claimed: Claimed, step: Callable[[], None]) -> Future[None]:
        """Queue a step of a shard, which is skipped if an earlier step failed."""

        def run() -> None:
            if self._failed:
                return
            try:
                step()
            except BaseException as error:
                self._failed = True
                if claimed in self._open:
                    self._abandon(claimed, error)
                raise

        self._steps.append(self._pool.submit(run))
        return self._steps[-1]

    # -- steps in the thread ---------------------------------------------------------------------

    def _claim(self, reports: Sequence[Report], shard: ShardPlan) -> Claimed | None:
        claimed = Claimed(shard)
        with contextlib.ExitStack() as held:
            for report in reports:
                writer = held.enter_context(claim(report.store, shard))
                if writer is not None:
                    claimed.targets.append((report, writer))
            if not claimed.targets:
                return None
            claimed.held = held.pop_all()  # locks stay held after this block
        self._open.append(claimed)
        return claimed

    def _abandon(self, claimed: Claimed, error: BaseException) -> None:
        """Leave a shard with an error, which removes its partial file and its locks, and raise it.

        The context managers of the shard may raise a `StorageError` instead.
        """
        self._open.remove(claimed)
        with claimed.held:
            raise error

    def _abandon_open(self) -> None:
        for claimed in list(self._open):
            with contextlib.suppress(BaseException):  # the run already ends with another error
                self._abandon(claimed, AbandonedError())
