"""The extraction run: every region of a split, encoded once, into one store per encoder.

Shards are the unit of work. Any number of processes may run the same command on one workspace:
each takes the shards that nobody has, and the last one writes the manifest. A run without a share
waits for what others have in hand; a task of a job array, which has one, leaves it to them.

Shapes: n rows of a batch, S side of the encoder's input.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import pa
from pa.data import images as im
from pa.data.datasets import Images
from pa.data.images import Box
from pa.data.regions import View
from pa.data.shards import BadImage, ShardPlan
from pa.errors import StorageError
from pa.extract.batches import batches, image_jobs
from pa.extract.encoders.base import Encoder
from pa.extract.pixels import Loader
from pa.extract.share import Share
from pa.extract.slots import Options, Report, open_store, remove_replaced, row_bytes
from pa.extract.stages import Stages
from pa.progress import Progress, Silent

POLL_SECONDS = 0.5
CPU_BATCH, GPU_BATCH = 64, 256


@dataclass(frozen=True)
class RunResult:
    """What a run did: one report per encoder, and where the time went."""

    reports: list[Report]
    stages: Stages

    @property
    def bad(self) -> list[BadImage]:
        """The images that could not be decoded; known once the store is complete."""
        store = self.reports[0].store
        return store.bad if store.is_complete else []

    @property
    def shards_left(self) -> int:
        """Shards that other tasks of the array have in hand; 0 where all is done."""
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
    options: Options | None = None,
    progress: Progress | None = None,
    share: Share | None = None,
) -> RunResult:
    """Encode every region of `images` with every encoder, decoding each image once.

    `features` is the workspace's folder of stores. What is already there is not done again. With a
    `share` the run begins with the shards of that task, helps with what is left, and ends when
    every missing shard is in the hands of others: `RunResult.shards_left` says how many.
    Raises `FingerprintError` where a store of the same name was made by something else, unless
    `options.replace` or `options.alongside`; `StorageError` where the disk fails.
    """
    options = options or Options()
    progress = progress or Silent()
    stages = Stages()
    began = time.perf_counter()
    rows = view.rows(images.first(options.limit))
    reports = [open_store(encoder, images, view, rows, features, options) for encoder in encoders]
    try:
        for pairs in _by_shard_size(encoders, reports):
            _fill(pairs, images.root, view, options, stages, progress, share)
    finally:
        stages.wall = time.perf_counter() - began
        for report in reports:
            _log(report, stages)
    for report in reports:
        if report.store.missing():
            continue  # in the hands of other tasks; whoever is last finishes
        report.store.finish()
        remove_replaced(report)
    return RunResult(reports, stages)


# -- the work ---------------------------------------------------------------------------------


def _by_shard_size(
    encoders: Sequence[Encoder], reports: Sequence[Report]
) -> Iterator[list[tuple[Encoder, Report]]]:
    """Group the stores whose shards have the same borders: those share decoded images."""
    pairs = list(zip(encoders, reports, strict=True))
    for size in sorted({report.store.shard_rows for report in reports}):
        yield [(e, r) for e, r in pairs if r.store.shard_rows == size]


def _fill(
    pairs: Sequence[tuple[Encoder, Report]],
    root: Path,
    view: View,
    options: Options,
    stages: Stages,
    progress: Progress,
    share: Share | None,
) -> None:
    """Write every missing shard of a group of stores."""
    store = pairs[0][1].store
    missing = {shard.index for _, report in pairs for shard in report.store.missing()}
    done = sum(shard.n_rows for shard in store.plan if shard.index not in missing)
    n_bytes = _bytes_to_write(pairs)
    _check_space(store.path, n_bytes)
    if missing:
        images = (
            f"{store.spec.rows['n_images']} images, {store.n_rows} rows, {n_bytes / 1e6:.1f} MB"
        )
        progress.note(f"{images} to write in {len(missing)} of {len(store.plan)} shards")
    progress.start(_title(pairs), store.n_rows, "rows", done)
    workers = options.workers or min(8, os.cpu_count() or 1)
    transforms = [encoder.transform for encoder, _ in pairs]
    batch = options.batch_size or _default_batch(pairs[0][0], view)
    try:
        with Loader(root, view, transforms, stages, workers) as loader:
            _drain(pairs, loader, batch, stages, progress, share)
    except KeyboardInterrupt:
        progress.note(f"{len(store.plan) - len(store.missing())} of {len(store.plan)} shards kept")
        raise
    finally:
        progress.stop()


def _bytes_to_write(pairs: Sequence[tuple[Encoder, Report]]) -> int:
    """The size of the shards that are missing."""
    return sum(
        row_bytes(report.store.spec) * sum(shard.n_rows for shard in report.store.missing())
        for _, report in pairs
    )


def _check_space(path: Path, n_bytes: int) -> None:
    """Raise `StorageError` before work begins that cannot end well."""
    free = shutil.disk_usage(path).free
    if n_bytes > free:
        raise StorageError(
            f"the features need {n_bytes / 1e9:.2f} GB, and {path} has {free / 1e9:.2f} GB free. "
            f"Free some space, choose another --workspace, or keep less with --features."
        )


def _default_batch(encoder: Encoder, view: View) -> int:
    """Regions per forward pass: fewer where they are larger than what the encoder is made for."""
    batch = GPU_BATCH if _device(encoder).type == "cuda" else CPU_BATCH
    native = encoder.transform.size
    return max(1, batch * native**2 // max(native, view.input_size(encoder.transform)) ** 2)


def _drain(
    pairs: Sequence[tuple[Encoder, Report]],
    loader: Loader,
    batch: int,
    stages: Stages,
    progress: Progress,
    share: Share | None,
) -> None:
    """Take shards until none is missing.

    Waits for those that other processes have in hand, to take over from one that is killed. With a
    `share` it leaves instead: a task that waits holds a GPU, and the array has a job after it.
    """
    waited = False
    while True:
        left = {s.index: s for _, report in pairs for s in report.store.missing()}
        if not left:
            return
        worked = False
        for index in share.order(sorted(left)) if share else sorted(left):
            worked |= _encode_shard(pairs, left[index], loader, batch, stages, progress)
        if not worked:
            if share:
                progress.note(f"{len(left)} shards are in the hands of other tasks: left to them")
                return
            if not waited:
                progress.note(f"{len(left)} shards are in the hands of other processes: waiting")
                waited = True
            time.sleep(POLL_SECONDS)


def _encode_shard(
    pairs: Sequence[tuple[Encoder, Report]],
    shard: ShardPlan,
    loader: Loader,
    batch: int,
    stages: Stages,
    progress: Progress,
) -> bool:
    """Encode one shard into every store that lacks it and is free; False if there was none."""
    with contextlib.ExitStack() as stack:
        claimed = [
            (encoder, report, writer)
            for encoder, report in pairs
            if (writer := stack.enter_context(report.store.claim(shard))) is not None
        ]
        if not claimed:
            return False
        jobs = image_jobs(claimed[0][1].store, shard, loader.view)
        size = batch
        for block in batches(loader.ahead(jobs), size, [w for _, _, w in claimed]):
            for encoder, report, writer in claimed:
                pixels = block.pixels.get(loader.view.cut_key(encoder.transform))
                shapes = report.store.spec.representations
                with stages.timed("encode"):
                    features = encode_pixels(encoder, pixels, block.valid, shapes)
                with stages.timed("write"):
                    writer.append(features, block.valid)
                report.rows_encoded += len(block.valid)
            progress.advance(len(block.valid))
        # Leaving the block checks, syncs and renames the shards.
        leave = time.perf_counter()
    stages.seconds["write"] += time.perf_counter() - leave
    return True


def encode_pixels(
    encoder: Encoder,
    pixels: npt.NDArray[np.uint8] | None,
    valid: npt.NDArray[np.bool_],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, npt.NDArray[np.float32]]:
    """Encode the valid rows of a batch; the others stay zero. Arrays (n, …), float32."""
    names = list(shapes)
    if pixels is None:
        return {name: np.zeros((len(valid), *shape), np.float32) for name, shape in shapes.items()}
    with torch.inference_mode():
        batch = torch.from_numpy(pixels).to(_device(encoder))
        features = encoder.encode(encoder.normalise(batch), names)
        arrays = {name: features[name].float().cpu().numpy() for name in names}
    if valid.all():
        return arrays
    full = {name: np.zeros((len(valid), *a.shape[1:]), np.float32) for name, a in arrays.items()}
    for name, array in arrays.items():
        full[name][valid] = array
    return full


def encode_region(
    encoder: Encoder, image: Image.Image, box: Box, representation: str
) -> npt.NDArray[np.float32]:
    """Encode one box of an upright RGB image (x0, y0, x1, y1 in its pixels): a vector (D,)."""
    cut = im.crop_resize(image, box, encoder.transform.size, "bicubic")
    encoder.require([representation])
    shapes = {representation: encoder.representations[representation]}
    vectors = encode_pixels(encoder, im.stack([cut]), np.ones(1, np.bool_), shapes)
    vector: npt.NDArray[np.float32] = vectors[representation][0]
    return vector


def _device(encoder: Encoder) -> torch.device:
    return next(encoder.module.parameters()).device


def _title(pairs: Sequence[tuple[Encoder, Report]]) -> str:
    spec = pairs[0][1].store.spec
    names = ",".join(encoder.name for encoder, _ in pairs)
    return f"{spec.dataset}/{spec.split}/{spec.view['name']} · {names}"


def _log(report: Report, stages: Stages) -> None:
    if not report.rows_encoded:
        return
    report.store.log_run(
        {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "rows": report.rows_encoded,
            "seconds": stages.to_json(),
            "versions": {"pa": pa.__version__, "torch": torch.__version__, "numpy": np.__version__},
        }
    )
