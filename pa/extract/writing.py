"""Claim, write and close shards in a thread, in parallel with the forward passes.

One thread performs all steps of a shard on disk, from the lock to the rename: a lock belongs to the
thread that acquired it, and signals arrive in the main thread only.

M: images of a shard, n: rows of a batch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pa.data.store.image_files import Status, status_array
from pa.data.store.shards import ShardPlan, ShardWriter
from pa.data.store.writer import claim
from pa.extract.encoders.base import Encoder
from pa.extract.encoding import Pending, spread
from pa.extract.pixels import Loaded
from pa.extract.stages import Stages
from pa.extract.stores import Report

PENDING_BATCHES = 2  # encoded batches that wait to be written; more only use memory


@dataclass(frozen=True)
class Target:
    """An encoder, and the store and shard writer of its features."""

    encoder: Encoder
    report: Report
    writer: ShardWriter


@dataclass(eq=False)
class Claimed:
    """A shard that this process holds, in each store in which it was missing and not locked."""

    shard: ShardPlan
    targets: list[Target] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # locks and files
    status: list[Status | None] = field(default_factory=list)  # of the M image files

    def noting(self, images: Iterable[Loaded]) -> Iterator[Loaded]:
        """Yield the images of the shard and record the state of each file."""
        for image in images:
            self.status.append(image.status)
            yield image


class AbandonedError(Exception):
    """Raised inside the clean-up of a shard when the run ends before the shard."""


class ShardThread:
    """Claim, write and close shards, one step after the other.

    The first error stops all later steps and is raised by the next call. Leaving the block waits
    for the queued steps and removes the files of shards that are not closed.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pa-write")
        self._room = threading.Semaphore(PENDING_BATCHES)
        self._open: list[Claimed] = []  # claimed and not closed
        self._error: BaseException | None = None  # the first one

    def __enter__(self) -> ShardThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.submit(self._abandon_all)
        self._pool.shutdown(wait=True)

    def claim(
        self, pairs: Sequence[tuple[Encoder, Report]], shard: ShardPlan
    ) -> Future[Claimed | None]:
        """Claim a shard in each store in which it is missing and not locked; None without any."""
        self._check()
        return self._pool.submit(self._claim, pairs, shard)

    def append(
        self, claimed: Claimed, target: Target, features: Pending, valid: npt.NDArray[np.bool_]
    ) -> None:
        """Write the next rows (n,) of a shard once their features arrive.

        Block while too many batches wait to be written.
        """
        self._room.acquire()
        self._pool.submit(self._append, claimed, target, features, valid)
        self._check()

    def close(self, claimed: Claimed) -> None:
        """Check, sync and rename a shard that has all its rows, and release it."""
        self._pool.submit(self._close, claimed)
        self._check()

    def flush(self) -> None:
        """Wait for all queued steps."""
        self._pool.submit(self._check).result()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # -- steps in the thread ---------------------------------------------------------------------

    def _claim(self, pairs: Sequence[tuple[Encoder, Report]], shard: ShardPlan) -> Claimed | None:
        claimed = Claimed(shard)
        with contextlib.ExitStack() as held:
            for encoder, report in pairs:
                writer = held.enter_context(claim(report.store, shard))
                if writer is not None:
                    claimed.targets.append(Target(encoder, report, writer))
            if not claimed.targets:
                return None
            claimed.held = held.pop_all()  # locks stay held after this block
        self._open.append(claimed)
        return claimed

    def _append(
        self, claimed: Claimed, target: Target, features: Pending, valid: npt.NDArray[np.bool_]
    ) -> None:
        try:
            if claimed in self._open:  # not abandoned after an earlier error
                with self._stages.timed("encode"):
                    arrays = features.arrays()  # (v, …) each
                with self._stages.timed("write"):
                    shapes = target.report.store.spec.representations
                    target.writer.append(spread(arrays, valid, shapes), valid)
                target.report.rows_encoded += len(valid)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._abandon(claimed, error)
        finally:
            self._room.release()

    def _close(self, claimed: Claimed) -> None:
        if claimed not in self._open:
            return
        if self._error is not None:
            self._abandon(claimed, AbandonedError())
            return
        self._open.remove(claimed)
        try:
            with self._stages.timed("write"):
                claimed.held.close()
                for target in claimed.targets:
                    target.report.wrote(claimed.shard, status_array(claimed.status))
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = self._error or error

    def _abandon(self, claimed: Claimed, error: BaseException) -> None:
        """Leave a shard with an error, which removes its partial file and its locks."""
        self._open.remove(claimed)
        try:
            with claimed.held:
                raise error
        except BaseException as raised:  # noqa: BLE001 - the error, or a StorageError for it
            self._error = self._error or raised

    def _abandon_all(self) -> None:
        for claimed in list(self._open):
            self._abandon(claimed, AbandonedError())
