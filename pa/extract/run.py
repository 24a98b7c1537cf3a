"""Encode every region of a split once, into one store per encoder.

Shards are the unit of work. Any number of processes may run the same command on one workspace: each
claims shards that no other process holds, and the last one writes the manifest. A run without a
share waits for the shards of other processes; a task of a job array, which has one, does not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

import pa
from pa.data import images as im
from pa.data.files import free_bytes
from pa.data.schema import Box, Images
from pa.data.store import writer
from pa.data.store.shards import BadImage
from pa.data.views import View
from pa.errors import StorageError
from pa.extract.batches import Batch, batches
from pa.extract.claims import Claims
from pa.extract.encoders.base import Encoder
from pa.extract.encoding import (
    Forward,
    Pending,
    cuts_on_device,
    default_batch,
    encode_pixels,
    upload,
)
from pa.extract.heap import freed_memory_kept
from pa.extract.pixels import CutKey, Loader
from pa.extract.reuse import reuse_rows
from pa.extract.share import Share
from pa.extract.stages import Stages
from pa.extract.stores import (
    ExtractOptions,
    Report,
    open_store,
    row_bytes,
    rows_in,
)
from pa.extract.writing import Claimed, ShardThread
from pa.progress import Progress, Silent

BATCHES_AHEAD = 2  # batches of images decoded in advance: hides differences between images
CPU = torch.device("cpu")

Pairs = Sequence[tuple[Encoder, Report]]  # encoders with the reports of their stores


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

    @property
    def shards_left(self) -> int:
        """Return the number of missing shards, which other tasks of the array hold."""
        return sum(len(report.store.missing()) for report in self.reports)

    def to_json(self) -> dict[str, Any]:
        return {
            "stores": [
                {
                    "store": report.store.title,
                    "path": str(report.store.path),
                    "fingerprint": report.store.fingerprint,
                    "rows": report.store.n_rows,
                    "rows_encoded": report.rows_encoded,
                    "complete": report.store.is_complete,
                    "shards_adopted": report.shards_adopted,
                    "rows_adopted": report.rows_adopted,
                    "rows_copied": report.rows_copied,
                    "bytes_copied": report.bytes_copied,
                    "copied_from": report.copied_from,
                    "seconds_saved": report.seconds_saved,
                    "replaced": report.replaced,
                }
                for report in self.reports
            ],
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
    options = options or ExtractOptions()
    run = _Run(images.root, view, options, Stages(), progress or Silent(), share)
    began = time.perf_counter()
    rows = view.rows(images.first(options.limit))
    reports = [open_store(encoder, images, view, rows, features, options) for encoder in encoders]
    pairs = list(zip(encoders, reports, strict=True))
    n_bytes, free = _bytes_to_write(pairs), free_bytes(features)
    if n_bytes > free:  # refused before hours of work, not after them
        raise StorageError(
            f"the features need {n_bytes / 1e9:.2f} GB, and {features} has {free / 1e9:.2f} GB "
            f"free. Free some space, choose another --workspace, or store less with --features."
        )
    copying = time.perf_counter()
    for report in reports:
        reuse_rows(report, view, features, share, run.progress)
    began += time.perf_counter() - copying  # `wall` is the time of encoding
    try:
        # Stores with equally large shards share decoded images.
        for size in sorted({report.store.shard_rows for report in reports}):
            run.fill([pair for pair in pairs if pair[1].store.shard_rows == size])
    finally:
        run.stages.wall = time.perf_counter() - began
        versions = {"pa": pa.__version__, "torch": torch.__version__, "numpy": np.__version__}
        for report in reports:
            if report.rows_encoded or report.rows_copied:
                fields = {
                    "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                    "host": platform.node(),
                    "rows": report.rows_encoded,
                    "copied_from": report.copied_from,
                    "seconds": run.stages.to_json(),
                    "versions": versions,
                }
                writer.log_run(report.store, fields)
    for report in reports:
        if report.store.missing():
            continue  # held by other tasks, of which the last one finishes the store
        if not report.store.is_complete:
            report.check_others()
        writer.finish(report.store)
        for path in report.replaced:
            shutil.rmtree(path, ignore_errors=True)
    return RunResult(reports, run.stages)


def _bytes_to_write(pairs: Pairs) -> int:
    """Return the size of the missing shards."""
    return sum(
        row_bytes(report.store.spec) * rows_in(report.store.missing()) for _, report in pairs
    )


@dataclass(frozen=True)
class _Run:
    """The arguments of a run that its steps share."""

    root: Path
    view: View
    options: ExtractOptions
    stages: Stages
    progress: Progress
    share: Share | None

    def fill(self, pairs: Pairs) -> None:
        """Write every missing shard of a group of stores, and report the progress."""
        store, progress = pairs[0][1].store, self.progress
        spec = store.spec
        missing = {shard.index for _, report in pairs for shard in report.store.missing()}
        done = sum(shard.n_rows for shard in store.plan if shard.index not in missing)
        if missing:
            progress.note(
                f"{spec.rows['n_images']} images, {store.n_rows} rows, "
                f"{_bytes_to_write(pairs) / 1e6:.1f} MB to write in {len(missing)} of "
                f"{len(store.plan)} shards"
            )
        names = ",".join(encoder.name for encoder, _ in pairs)
        title = f"{spec.dataset}/{spec.split}/{spec.view['name']} · {names}"
        progress.start(title, store.n_rows, "rows", done)
        try:
            self._encode_missing(pairs)
        except KeyboardInterrupt:
            n_kept = len(store.plan) - len(store.missing())
            progress.note(f"{n_kept} of {len(store.plan)} shards kept")
            raise
        finally:
            progress.stop()

    def _encode_missing(self, pairs: Pairs) -> None:
        """Claim shards until none is missing; decode, encode and write in parallel."""
        encoders = [encoder for encoder, _ in pairs]
        size = self.options.batch_size or default_batch(encoders[0], self.view)
        store = pairs[0][1].store
        loader = Loader(
            self.root,
            self.view,
            [encoder.transform for encoder in encoders],
            self.stages,
            self.options.workers or min(8, os.cpu_count() or 1),  # more do not decode faster
            # Regions per image turn batches into images.
            ahead_images=BATCHES_AHEAD * size * store.spec.rows["n_images"] // max(store.n_rows, 1),
            canvases=cuts_on_device(encoders, self.view),
        )
        passes = [Forward(e, list(report.store.spec.representations)) for e, report in pairs]
        by_encoder = {id(forward.encoder): forward for forward in passes}
        on_cpu = any(forward.device.type == "cpu" for forward in passes)
        memory = freed_memory_kept() if on_cpu else contextlib.nullcontext()
        with memory, loader, ShardThread(self.stages) as thread:
            claims = Claims(pairs, self.view, thread, self.progress, self.share)
            loaded = loader.ahead(claims.jobs(lambda: loader.busy))
            for first in loaded:  # the first image of each shard
                claimed, n_images = claims.begun()
                images = itertools.chain([first], itertools.islice(loaded, n_images - 1))
                writers = [target.writer for target in claimed.targets]
                for batch in batches(claimed.noting(images), size, writers):
                    self._encode_batch(batch, claimed, by_encoder, thread)
                    self.progress.advance(len(batch.valid))
                thread.close(claimed)
            thread.flush()

    def _encode_batch(
        self, batch: Batch, claimed: Claimed, passes: Mapping[int, Forward], thread: ShardThread
    ) -> None:
        """Encode a batch with each encoder whose store lacks the shard; they share the upload."""
        uploaded: dict[tuple[CutKey, torch.device], Tensor] = {}  # (v, S, S, 3) uint8 each
        for target in claimed.targets:
            forward = passes[id(target.encoder)]
            transform = target.encoder.transform
            key = self.view.cut_key(transform), forward.device
            with self.stages.timed("encode"):
                if key not in uploaded and (cuts := batch.cuts.get(key[0])):
                    uploaded[key] = upload(cuts, forward.device, self.view, transform)
                # A batch of bad images has no pixels.
                features = forward.begin(uploaded[key]) if key in uploaded else Pending({}, CPU)
            thread.append(claimed, target, features, batch.valid)


def encode_region(
    encoder: Encoder, image: Image.Image, box: Box, representation: str
) -> npt.NDArray[np.float32]:
    """Encode a box (x0, y0, x1, y1, pixels) of an upright RGB image to a vector (D,)."""
    cut = im.crop_resize(image, box, encoder.transform.size, "bicubic")
    encoder.require([representation])
    arrays = encode_pixels(encoder, im.stack([cut]), [representation])
    vector: npt.NDArray[np.float32] = arrays[representation][0]
    return vector
