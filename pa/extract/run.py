"""Encode every region of a split once, into one store per encoder.

Shards are the unit of work. Any number of processes may run the same command on one workspace: each
claims shards that no other process holds, and the last one writes the manifest. A run without a
share waits for the shards of other processes, to replace one that is killed. A task of a job array,
which has a share, does not: a waiting task occupies a GPU, and a job after the array finishes.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pa.data.files import free_bytes
from pa.data.schema import Images
from pa.data.store import writer
from pa.data.store.shards import BadImage
from pa.data.version import __version__
from pa.data.views import View
from pa.extract.encoders.base import Encoder
from pa.extract.encoding import (
    Forward,
    Pending,
    cuts_on_device,
    default_batch,
    freed_memory_kept,
    upload,
)
from pa.extract.pixels import Batch, CutKey, ImageJob, Loader, Stages, batches, image_jobs
from pa.extract.plan import require_space
from pa.extract.share import MAX_MISSES, Share
from pa.extract.stores import ExtractOptions, Report, open_store, reuse_rows, row_bytes, rows_in
from pa.extract.writing import Claimed, ShardThread
from pa.progress import Progress, Silent

BATCHES_AHEAD = 2  # batches of images decoded in advance: hides differences between images
POLL_SECONDS = 0.5  # between attempts to claim shards that other processes hold
CPU = torch.device("cpu")


@dataclass(frozen=True)
class RunResult:
    """The result of a run: one report per encoder, and the time of each stage."""

    reports: list[Report]
    stages: Stages

    @property
    def bad(self) -> list[BadImage]:
        """Return the images that cannot be decoded; known once the store is complete."""
        store = self.reports[0].store
        return store.bad if store.is_complete else []

    def to_json(self) -> dict[str, Any]:
        return {
            "stores": [report.to_json() for report in self.reports],
            "bad_images": [vars(bad) for bad in self.bad],
            "seconds": self.stages.to_json(),
            "limit": self.stages.limit,
        }


def extract(
    encoders: Sequence[Encoder],
    images: Images,
    view: View,
    features: Path,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
    share: Share | None = None,
) -> RunResult:
    """Encode every region of `images` with every encoder, decoding each image once.

    Finished shards are not encoded again.

    Parameters
    ----------
    features
        Folder of the stores of a workspace.
    share
        The task of a job array that this process is. The run begins with the shards of the task,
        continues with those of others, and ends when other tasks hold all missing shards.

    Raises
    ------
    FingerprintError
        If a conflicting store exists, unless `options.replace` or `options.alongside` is set, or
        if the image files have changed, unless `options.replace` is set.
    StorageError
        If the disk is full or fails.
    """
    options, progress, stages = options or ExtractOptions(), progress or Silent(), Stages()
    began = time.perf_counter()
    rows = view.rows(images.first(options.limit))
    # Before any image is decoded: a conflict or changed images end the run early.
    reports = [open_store(encoder, images, view, rows, features, options) for encoder in encoders]
    require_space(_bytes_to_write(reports), features, free_bytes(features))
    copying = time.perf_counter()
    for report in reports:
        reuse_rows(report, view, features, share, progress)
    began += time.perf_counter() - copying  # `wall` is the time of encoding
    try:
        # Stores with equally large shards share decoded images.
        for size in sorted({report.store.shard_rows for report in reports}):
            group = [report for report in reports if report.store.shard_rows == size]
            _Run(group, images.root, view, options, stages, progress, share).fill()
    finally:
        stages.wall = time.perf_counter() - began
        # Also after an interruption: plans estimate the time from the longest recorded run.
        _log(reports, stages)
    for report in reports:
        if report.store.missing():
            continue  # held by other tasks, of which the last one finishes the store
        if not report.store.is_complete:
            report.check_others()
        writer.finish(report.store)
        # The old stores are deleted only once the new one is complete.
        for path in report.replaced:
            shutil.rmtree(path, ignore_errors=True)
    return RunResult(reports, stages)


def _log(reports: Sequence[Report], stages: Stages) -> None:
    """Add the run to runs.jsonl of each store that it wrote to, also if it was interrupted."""
    for report in reports:
        if report.rows_encoded or report.rows_copied:
            fields = {
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": platform.node(),
                "rows": report.rows_encoded,
                "copied_from": report.copied_from,
                "seconds": stages.to_json(),
                "versions": {
                    "pa": __version__,
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                },
            }
            writer.log_run(report.store, fields)


def _bytes_to_write(reports: Sequence[Report]) -> int:
    """Return the size of the missing shards."""
    stores = [report.store for report in reports]
    return sum(row_bytes(store.spec) * rows_in(store.missing()) for store in stores)


@dataclass(frozen=True)
class _Run:
    """The extraction loop of stores with equally large shards."""

    reports: list[Report]
    root: Path
    view: View
    options: ExtractOptions
    stages: Stages
    progress: Progress
    share: Share | None

    def fill(self) -> None:
        """Write every missing shard, and report the progress."""
        store, progress = self.reports[0].store, self.progress
        spec = store.spec
        missing = {shard.index for report in self.reports for shard in report.store.missing()}
        done = sum(shard.n_rows for shard in store.plan if shard.index not in missing)
        if missing:
            progress.note(
                f"{spec.rows['n_images']} images, {store.n_rows} rows, "
                f"{_bytes_to_write(self.reports) / 1e6:.1f} MB to write in {len(missing)} of "
                f"{len(store.plan)} shards"
            )
        names = ",".join(report.encoder.name for report in self.reports)
        title = f"{spec.dataset}/{spec.split}/{spec.view['name']} · {names}"
        progress.start(title, store.n_rows, "rows", done)
        try:
            self._encode_missing()
        except KeyboardInterrupt:
            n_kept = len(store.plan) - len(store.missing())
            progress.note(f"{n_kept} of {len(store.plan)} shards kept")
            raise
        finally:
            progress.stop()

    def _encode_missing(self) -> None:
        """Claim shards until none is missing; decode, encode and write in parallel."""
        encoders = [report.encoder for report in self.reports]
        size = self.options.batch_size or default_batch(encoders[0], self.view)
        store = self.reports[0].store
        loader = Loader(
            self.root,
            self.view,
            [encoder.transform for encoder in encoders],
            self.stages,
            self.options.workers,
            # Regions per image turn batches into images.
            ahead_images=BATCHES_AHEAD * size * store.spec.rows["n_images"] // max(store.n_rows, 1),
            canvases=cuts_on_device(encoders, self.view),
        )
        # One object per run: it remembers how many regions fit into the memory of the device.
        passes = {
            id(report): Forward(report.encoder, list(report.store.spec.representations))
            for report in self.reports
        }
        on_cpu = any(forward.device.type == "cpu" for forward in passes.values())
        memory = freed_memory_kept() if on_cpu else contextlib.nullcontext()
        with memory, loader, ShardThread(self.stages) as thread:
            # Images of the next shard are decoded while this one is encoded and the last one is
            # closed.
            ahead: deque[Claimed] = deque()  # shards whose images are loaded
            loaded = loader.ahead(self._jobs(ahead, thread, loader))
            for first in loaded:  # the first image of each shard
                claimed = ahead.popleft()
                images = itertools.chain([first], itertools.islice(loaded, len(claimed.jobs) - 1))
                writers = [writer for _, writer in claimed.targets]
                for batch in batches(claimed.noting(images), size, writers):
                    self._encode_batch(batch, claimed, passes, thread)
                    self.progress.advance(len(batch.valid))
                thread.close(claimed)
            thread.flush()

    def _jobs(
        self, ahead: deque[Claimed], thread: ShardThread, loader: Loader
    ) -> Iterator[ImageJob | None]:
        """Claim missing shards, append them to `ahead`, and yield their images in order.

        The next shard is claimed while the last images of the current one are encoded, so that
        decoding does not stop between shards. Only one shard is held ahead, to leave the others to
        other processes. Yield None while the next shard is not claimed yet and the loader is busy.
        """
        waited = False  # whether the note about waiting was printed
        while left := {s.index: s for report in self.reports for s in report.store.missing()}:
            took, misses = False, 0  # misses: consecutive shards that could not be claimed
            for index in self.share.order(sorted(left)) if self.share else sorted(left):
                while ahead and loader.busy:
                    yield None
                claim = thread.claim(self.reports, left[index])
                while loader.busy and not claim.done():
                    yield None
                claimed = claim.result()
                if claimed is None:
                    misses += 1
                    if took and misses == MAX_MISSES:
                        break  # list the missing shards again
                    continue
                took, misses = True, 0
                store, shard = claimed.targets[0][0].store, claimed.shard
                claimed.jobs = image_jobs(store.rows.slice(shard.start, shard.n_rows), self.view)
                ahead.append(claimed)
                yield from claimed.jobs
            while loader.busy:
                yield None
            thread.flush()  # the last shards are closed before missing ones are listed
            if took:
                continue
            if self.share:
                self.progress.note(f"skipping {len(left)} shards locked by other tasks")
                return
            if not waited:
                self.progress.note(f"waiting for {len(left)} shards locked by other processes")
                waited = True
            time.sleep(POLL_SECONDS)

    def _encode_batch(
        self, batch: Batch, claimed: Claimed, passes: Mapping[int, Forward], thread: ShardThread
    ) -> None:
        """Encode a batch with each encoder whose store lacks the shard; they share the upload."""
        # Encoders with equal transforms share the cuts, and on one device also their copy.
        uploaded: dict[tuple[CutKey, torch.device], Tensor] = {}  # (v, S, S, 3) uint8 each
        for target in claimed.targets:
            forward = passes[id(target[0])]
            transform = forward.encoder.transform
            key = self.view.cut_key(transform), forward.device
            with self.stages.timed("encode"):
                if key not in uploaded and (cuts := batch.cuts.get(key[0])):
                    uploaded[key] = upload(cuts, forward.device, self.view, transform)
                # A batch of bad images has no pixels.
                features = forward.begin(uploaded[key]) if key in uploaded else Pending({}, CPU)
            thread.append(claimed, target, features, batch.valid)
