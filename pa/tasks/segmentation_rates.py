"""How fast this machine encodes, reads, writes and trains a segmentation head, measured briefly."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pa.config import Config
from pa.data.store.reader import Store
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.extract.encoders.base import Encoder
    from pa.probe.segmentation.costs import Machine, Workload
    from pa.probe.segmentation.labels import LabelMaps
    from pa.probe.segmentation.recipes import SegmentationRecipe

MEASURED_STEPS = 2
DISK_BYTES = 64 * 1024**2
CPU_WINDOWS, GPU_WINDOWS = 2, 32


@dataclass(frozen=True)
class EncoderSize:
    """Width, blocks and patch of a ViT."""

    width: int
    depth: int
    patch: int


def encode_rate(
    machine: Machine,
    config: Config,
    name: str | None,
    work: Workload,
    store: Store | None,
    place: str,
    given: Path | None = None,
) -> tuple[Machine, EncoderSize | None]:
    """The machine with the speed of encoding, and the encoder's size.

    Measured on a few windows where the encoder's checkpoint is there; else taken from the record of
    the store's extraction, if any; else left as it is. The size is None where it is not known.
    """
    from pa.probe.segmentation.costs import Rate
    from pa.tasks.encoders import EncoderChoice, find_checkpoint, load_encoder

    wanted = name or (store.encoder if store is not None else None)
    checkpoint = find_checkpoint(config, wanted, given) if wanted else None
    unit = machine.encode.unit
    if wanted is not None and checkpoint is not None and checkpoint.is_file():
        encoder = load_encoder(config, wanted, EncoderChoice(checkpoint=given, device=place))
        tokens, width = encoder.representations_at(work.crop)["patch"]
        depth = int(encoder.spec.architecture.get("depth", work.depth))
        size = EncoderSize(width, depth, work.crop // round(tokens**0.5))
        n = GPU_WINDOWS if place.startswith("cuda") else CPU_WINDOWS
        seconds = _encode_seconds(encoder, work.crop, n)
        told = f"measured here on {n} windows, {wanted}"
        rate = n * replace(work, **vars(size)).encode_flops / seconds
        return replace(machine, encode=Rate(rate, unit, told)), size
    runs = store.runs() if store is not None else []
    runs = [run for run in runs if run.get("rows") and run["seconds"].get("encode")]
    if store is None or not runs:
        return machine, None
    run = max(runs, key=lambda run: run["rows"])
    speed = run["rows"] / run["seconds"]["encode"]
    told = f"measured when {store.spec.short[:8]} was extracted on {run['host']}"
    return replace(machine, encode=Rate(speed * work.encode_flops, unit, told)), None


def _encode_seconds(encoder: Encoder, crop: int, n: int) -> float:
    """Seconds for n windows of noise, after one pass that is not counted."""
    import numpy as np

    from pa.extract.encoding import encode_pixels

    pixels = np.random.default_rng(0).integers(0, 256, (n, crop, crop, 3), np.uint8)
    encode_pixels(encoder, pixels, ["patch"])
    started = time.perf_counter()
    encode_pixels(encoder, pixels, ["patch"])
    return time.perf_counter() - started


def disk_rates(machine: Machine, folder: Path, progress: Progress) -> Machine:
    """The machine with the speed of the disk that holds `folder`, which need not be there yet.

    A file of 64 MiB is written, forced to disk, dropped from memory as far as the system does
    that, read back, and removed. Where nothing can be written the rates stay as they are.
    """
    from pa.probe.segmentation.costs import Rate

    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    progress.note(f"measuring the disk of {there}")
    block = os.urandom(DISK_BYTES)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".pa-plan-") as file:
            started = time.perf_counter()
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter() - started
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started = time.perf_counter()
            file.read()
            read = time.perf_counter() - started
    except OSError:
        return machine
    told = f"measured here, {DISK_BYTES // 1024**2} MiB"
    return replace(
        machine,
        read=Rate(DISK_BYTES / read, machine.read.unit, told),
        write=Rate(DISK_BYTES / written, machine.write.unit, told),
    )


def head_rates(
    machine: Machine,
    work: Workload,
    store: Store,
    maps: Sequence[LabelMaps],
    recipe: SegmentationRecipe,
    place: str,
    progress: Progress,
) -> Machine:
    """The machine with the rates of the head's step and of reading, as they are on this store.

    Reading is the slower of the disk, as `machine` has it, and of taking batches from the store,
    which the system may hold in memory.
    """
    from pa.probe.segmentation.batches import TrainingWindows
    from pa.probe.segmentation.costs import Rate
    from pa.probe.segmentation.labels import WindowRows
    from pa.probe.segmentation.train import HeadSpec, train_heads

    progress.note("measuring: reading from the store, and a few steps of the head")
    windows = TrainingWindows(
        WindowRows.of(store), maps, recipe.representation, recipe.batch, recipe.seed
    )
    started = time.perf_counter()
    n_bytes = sum(windows.batch(t).raw.nbytes for t in range(MEASURED_STEPS))
    unpacked = n_bytes / (time.perf_counter() - started)
    heads = len(work.classes) // len(maps)
    specs = [HeadSpec(i, recipe.lr) for i in range(len(maps)) for _ in range(heads)]
    few = replace(recipe, iterations=MEASURED_STEPS, warmup=0)
    started = time.perf_counter()
    train_heads(windows, specs, few, device=place)
    # Products and loss were timed as one: each takes the share that the assumed rates give it.
    slower = (time.perf_counter() - started) / (MEASURED_STEPS * work.step_seconds(machine))
    told = f"measured here, {MEASURED_STEPS} iterations"
    measured = replace(
        machine,
        head=Rate(machine.head.value / slower, machine.head.unit, told),
        loss=Rate(machine.loss.value / slower, machine.loss.unit, told),
    )
    if unpacked >= machine.read.value:
        return measured
    told = f"{told}: unpacking and labels, slower than the disk"
    return replace(measured, read=Rate(unpacked, machine.read.unit, told))
