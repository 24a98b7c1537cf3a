"""The thread that takes shards, writes them and closes them, beside the forward passes.

One thread does all that concerns a shard on disk, in order, from the lock to the rename: a lock
belongs to the thread that took it, and no signal ever arrives in it.
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

PENDING_BATCHES = 2  # encoded and not written yet; more would only take memory


@dataclass(frozen=True)
class Target:
    """One encoder, and the store and shard that its features go to."""

    encoder: Encoder
    report: Report
    writer: ShardWriter


@dataclass(eq=False)
class Claimed:
    """A shard in this process's hands, in every store that lacked it and where it was free."""

    shard: ShardPlan
    targets: list[Target] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    status: list[Status | None] = field(default_factory=list)

    def noting(self, images: Iterable[Loaded]) -> Iterator[Loaded]:
        """Pass the shard's images on, and note the state of each file."""
        for image in images:
            self.status.append(image.status)
            yield image


class AbandonedError(Exception):
    """What a shard's own clean-up is told when the run ends before the shard does."""


class ShardThread:
    """Claims, writes and closes shards, one task after the other.

    The first error stops all that follows; it is raised by the next call. Leaving the block waits
    for what was asked for, and gives up shards that are not closed, so that nothing of them stays.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pa-write")
        self._room = threading.Semaphore(PENDING_BATCHES)
        self._open: list[Claimed] = []
        self._error: BaseException | None = None

    def __enter__(self) -> ShardThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.submit(self._abandon)
        self._pool.shutdown(wait=True)

    def claim(
        self, pairs: Sequence[tuple[Encoder, Report]], shard: ShardPlan
    ) -> Future[Claimed | None]:
        """Take a shard wherever it is missing and free; None where it is nowhere."""
        self._check()
        return self._pool.submit(self._claim, pairs, shard)

    def append(
        self, claimed: Claimed, target: Target, features: Pending, valid: npt.NDArray[np.bool_]
    ) -> None:
        """Write the next rows of a shard, when their features arrive.

        Waits while too many batches are on their way.
        """
        self._room.acquire()
        self._pool.submit(self._append, claimed, target, features, valid)
        self._check()

    def close(self, claimed: Claimed) -> None:
        """Check, sync and rename a shard whose rows are all there, and let go of it."""
        self._pool.submit(self._close, claimed)
        self._check()

    def flush(self) -> None:
        """Wait until all that was asked for is done."""
        self._pool.submit(self._check).result()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # -- in the thread ----------------------------------------------------------------------------

    def _claim(self, pairs: Sequence[tuple[Encoder, Report]], shard: ShardPlan) -> Claimed | None:
        claimed = Claimed(shard)
        with contextlib.ExitStack() as held:
            for encoder, report in pairs:
                writer = held.enter_context(claim(report.store, shard))
                if writer is not None:
                    claimed.targets.append(Target(encoder, report, writer))
            if not claimed.targets:
                return None
            claimed.held = held.pop_all()
        self._open.append(claimed)
        return claimed

    def _append(
        self, claimed: Claimed, target: Target, features: Pending, valid: npt.NDArray[np.bool_]
    ) -> None:
        try:
            if claimed in self._open:
                with self._stages.timed("encode"):
                    arrays = features.arrays()
                with self._stages.timed("write"):
                    shapes = target.report.store.spec.representations
                    target.writer.append(spread(arrays, valid, shapes), valid)
                target.report.rows_encoded += len(valid)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._give_up(claimed, error)
        finally:
            self._room.release()

    def _close(self, claimed: Claimed) -> None:
        if claimed not in self._open:
            return
        if self._error is not None:
            self._give_up(claimed, AbandonedError())
            return
        self._open.remove(claimed)
        try:
            with self._stages.timed("write"):
                claimed.held.close()
                for target in claimed.targets:
                    target.report.wrote(claimed.shard, status_array(claimed.status))
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = self._error or error

    def _give_up(self, claimed: Claimed, error: BaseException) -> None:
        """Leave a shard by an error: its partial file goes, its locks too."""
        self._open.remove(claimed)
        try:
            with claimed.held:
                raise error
        except BaseException as met:  # noqa: BLE001 - the same, or what the store makes of it
            self._error = self._error or met

    def _abandon(self) -> None:
        for claimed in list(self._open):
            self._give_up(claimed, AbandonedError())
