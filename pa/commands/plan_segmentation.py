"""`pa probe segmentation --plan`: sizes from dataset or stores, rates from what is there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pa.commands.choose import dataset_kind, device, load_images
from pa.commands.probe_segmentation import (
    SegmentationRequest,
    choose_stores,
    label_maps,
    make_recipe,
)
from pa.config import Config
from pa.data import labels
from pa.data.store import Store
from pa.errors import MissingError, UsageError
from pa.progress import Progress, Silent

if TYPE_CHECKING:
    from pa.probe.segmentation.labels import LabelMaps
    from pa.probe.segmentation.plan import Machine, Plan, Workload
    from pa.probe.segmentation.recipes import SegmentationRecipe

# Of all encoders of the paper: ViT-B/16.
USUAL = {"width": 768, "depth": 12, "patch": 16}
VALUE_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
MEASURED_STEPS = 2


def plan_segmentation(
    config: Config, request: SegmentationRequest, views: int, progress: Progress
) -> Plan:
    """What training and scoring would cost, cached or online, on a CPU and on a GPU.

    With stores there, sizes are theirs and reading, encoding and the head's step are measured;
    without, sizes are the dataset's, the encoder is taken for a ViT-B/16, and all rates are
    assumed. Nothing is written.
    """
    from pa.probe.segmentation import plan

    place = device(request.device or config.settings.device)
    here = "gpu" if place.startswith("cuda") else "cpu"
    machines = {"cpu": plan.CPU, "gpu": plan.GPU}
    try:
        train, test = choose_stores(config, request)
    except MissingError:
        work = _from_dataset(config, request)
        source = "assumed: ViT-B/16, no store is there yet"
    else:
        maps = label_maps(config, request, train)
        recipe = make_recipe(request, train.encoder)
        work = _from_stores(train, test, maps, recipe, request)
        machines[here] = _measured(machines[here], work, train, maps, recipe, place, progress)
        source = f"of {train.title}"
    config.workspace.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(config.workspace).free
    return plan.make_plan(work, list(machines.values()), views, free, source, here)


def _heads(request: SegmentationRequest) -> int:
    """Heads per label set."""
    return max(1, len(request.lrs)) * max(1, len(request.init_seeds))


def _from_dataset(config: Config, request: SegmentationRequest) -> Workload:
    """Sizes of a dataset on disk, before anything is extracted."""
    from pa.data.datasets import tree
    from pa.data.windows import windows_for
    from pa.probe.segmentation.plan import Workload

    splits = (request.train_split or "train", request.test_split or "val")
    train, test = (load_images(config, request.dataset, request.root, split) for split in splits)
    kind = dataset_kind(config, train.dataset)
    if kind not in labels.LISTS:
        raise UsageError(f"dataset {train.dataset} has no label maps to plan a segmentation of.")
    view = windows_for(kind)
    recipe = make_recipe(request, request.encoder or config.settings.encoder or "")
    n_classes = len(tree.label_set(kind, train.root))
    return Workload(
        train_images=len(train.table),
        test_images=len(test.table),
        test_windows=len(view.rows(test)),
        crop=view.crop,
        layers=4 if recipe.representation == "layers" else 1,
        value_bytes=VALUE_BYTES[config.settings.storage],
        classes=(n_classes,) * _heads(request),
        iterations=recipe.iterations,
        batch=recipe.batch,
        **USUAL,
    )


def _from_stores(
    train: Store,
    test: Store,
    maps: Sequence[LabelMaps],
    recipe: SegmentationRecipe,
    request: SegmentationRequest,
) -> Workload:
    """Sizes of stores that are there."""
    from pa.probe.segmentation.batches import grid_of
    from pa.probe.segmentation.labels import WindowRows, survey
    from pa.probe.segmentation.plan import Workload

    crop = int(train.spec.view["crop"])
    grid, width = grid_of(train, recipe.representation)
    shape = train.shape(recipe.representation)
    layers = shape[0] if len(shape) == 3 else 1
    built: dict[str, Any] = train.spec.encoder.get("architecture", {})
    windows = WindowRows.of(train)
    seen = survey(maps[0], windows, Silent())
    return Workload(
        train_images=len(windows.images),
        test_images=test.spec.rows["n_images"],
        test_windows=test.n_rows,
        crop=crop,
        patch=crop // grid,
        width=width // layers,
        depth=int(built.get("depth", USUAL["depth"])),
        layers=layers,
        value_bytes=VALUE_BYTES[train.spec.precision["storage"]],
        classes=tuple(len(one.classes) for one in maps for _ in range(_heads(request))),
        iterations=recipe.iterations,
        batch=recipe.batch,
        labelled=float(seen.pixels.sum() / (len(windows) * crop**2)),
    )


def _measured(
    machine: Machine,
    work: Workload,
    store: Store,
    maps: Sequence[LabelMaps],
    recipe: SegmentationRecipe,
    place: str,
    progress: Progress,
) -> Machine:
    """The machine with the rates that this machine shows on this store."""
    from pa.probe.segmentation.batches import TrainingWindows
    from pa.probe.segmentation.labels import WindowRows
    from pa.probe.segmentation.plan import Rate
    from pa.probe.segmentation.train import HeadSpec, train_heads

    progress.note("measuring: reading, and a few steps of the head")
    windows = TrainingWindows(
        WindowRows.of(store), maps, recipe.representation, recipe.batch, recipe.seed
    )
    started = time.perf_counter()
    n_bytes = sum(windows.batch(t).raw.nbytes for t in range(MEASURED_STEPS))
    read = n_bytes / (time.perf_counter() - started)
    heads = len(work.classes) // len(maps)
    specs = [HeadSpec(i, recipe.lr) for i in range(len(maps)) for _ in range(heads)]
    few = replace(recipe, iterations=MEASURED_STEPS, warmup=0)
    started = time.perf_counter()
    train_heads(windows, specs, few, device=place)
    # Products and loss were timed as one: each takes the share that the assumed rates give it.
    slower = (time.perf_counter() - started) / (MEASURED_STEPS * work.step_seconds(machine))
    told = f"measured here, {MEASURED_STEPS} iterations"
    reading = f"{told}, labels too; from memory where the system holds the file"
    measured = replace(
        machine,
        head=Rate(machine.head.value / slower, machine.head.unit, told),
        loss=Rate(machine.loss.value / slower, machine.loss.unit, told),
        read=Rate(read, machine.read.unit, reading),
    )
    runs = [run for run in store.runs() if run.get("rows") and run["seconds"].get("encode")]
    if runs:
        run = max(runs, key=lambda run: run["rows"])
        rate = run["rows"] * work.encode_flops / run["seconds"]["encode"]
        told = f"measured when {store.spec.short[:8]} was extracted on {run['host']}"
        measured = replace(measured, encode=Rate(rate, machine.encode.unit, told))
    return measured
