"""`pa probe segmentation --plan`: sizes from dataset or stores, rates from this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.files import free_bytes
from pa.data.store.reader import Store
from pa.errors import MissingError, UsageError
from pa.progress import Progress, Silent
from pa.tasks.choose import dataset_kind, device, load_images
from pa.tasks.probe_segmentation import (
    SegmentationRequest,
    check_request,
    encoder_names,
    make_recipe,
)
from pa.tasks.segmentation_inputs import choose_stores, live_splits, source_of
from pa.tasks.segmentation_labels import label_maps
from pa.tasks.segmentation_rates import EncoderSize, disk_rates, encode_rate, head_rates

if TYPE_CHECKING:
    from pa.probe.segmentation.costs import Machine, Workload
    from pa.probe.segmentation.labels import LabelMaps
    from pa.probe.segmentation.plan import Plan
    from pa.probe.segmentation.recipes import SegmentationRecipe

PLAN_VIEWS = 10
# Of all encoders of the paper: ViT-B/16.
USUAL = EncoderSize(width=768, depth=12, patch=16)


@dataclass(frozen=True)
class _Found:
    """What is there to plan with: the work, its recipe, and stores with labels where extracted."""

    work: Workload
    recipe: SegmentationRecipe
    source: str
    train: Store | None = None
    maps: Sequence[LabelMaps] = ()


def plan_segmentation(
    config: Config, request: SegmentationRequest, views: int | None, progress: Progress
) -> Plan:
    """What training and scoring would cost, cached or online, on a CPU and on a GPU.

    The disk of the workspace is measured, and so is encoding where the encoder's checkpoint is
    there; with stores there, the head's step and reading from them too. What is not measured is
    assumed, and says so. Nothing is kept on disk. Raises `UsageError` for options that a plan does
    not depend on.
    """
    from pa.probe.segmentation import costs
    from pa.probe.segmentation.plan import make_plan

    check_request(request)
    _refuse_idle(request)
    (name,) = _one_encoder(config, request)
    place = device(request.device or config.settings.device)
    here = "gpu" if place.startswith("cuda") else "cpu"
    machines = {"cpu": costs.CPU, "gpu": costs.GPU}
    recipe = make_recipe(request, name or "")
    try:
        pair = choose_stores(config, replace(request, encoder=name), recipe.representation)
    except MissingError:
        found, machine = _before(config, request, name, machines[here], place, progress)
    else:
        found = _from_stores(config, request, *pair)
        machine, _ = encode_rate(
            machines[here], config, name, found.work, found.train, place, request.checkpoint
        )
    machine = disk_rates(machine, config.features, progress)
    if found.train is not None:
        machine = head_rates(
            machine, found.work, found.train, found.maps, found.recipe, place, progress
        )
    machines[here] = machine
    free = free_bytes(config.features)
    n_views = PLAN_VIEWS if views is None else views
    return make_plan(found.work, list(machines.values()), n_views, free, found.source, here)


def _refuse_idle(request: SegmentationRequest) -> None:
    """Raise `UsageError` for options that change nothing in a plan."""
    idle = {
        "--online": request.online,
        "--figures": request.figures is not None,
        "--ceiling": request.ceiling,
        "--test-fraction": request.test_fraction is not None,
    }
    given = [option for option, is_given in idle.items() if is_given]
    if given:
        raise UsageError(
            f"{', '.join(given)} changes nothing in a plan, which costs every way, encoding on the "
            f"fly too: leave it out beside --plan."
        )


def _one_encoder(config: Config, request: SegmentationRequest) -> tuple[str | None]:
    names = encoder_names(config, request)
    if len(names) > 1:
        raise UsageError(f"a plan is of one encoder, not of {len(names)}: --encoder {names[0]}.")
    return (names[0],)


def _heads(request: SegmentationRequest) -> int:
    """Heads per label set."""
    return max(1, len(request.lrs)) * max(1, len(request.init_seeds))


def _before(
    config: Config,
    request: SegmentationRequest,
    name: str | None,
    machine: Machine,
    place: str,
    progress: Progress,
) -> tuple[_Found, Machine]:
    """Sizes of a dataset and of an encoder's checkpoint, before anything is extracted."""
    from pa.data.views.windows import windows_for
    from pa.probe.segmentation.costs import Workload

    splits = live_splits(config, request)
    train, test = (load_images(config, request.dataset, request.root, split) for split in splits)
    maps = label_maps(config, request, train.dataset, train.root)
    view = windows_for(dataset_kind(config, train.dataset))
    recipe, storage = make_recipe(request, name or ""), config.settings.storage
    work = Workload(
        train_images=len(train.table),
        test_images=len(test.table),
        test_windows=len(view.rows(test)),
        crop=view.crop,
        layers=4 if recipe.representation == "layers" else 1,
        vector_bytes=_vector_bytes(USUAL.width, storage),
        classes=tuple(len(one.classes) for one in maps for _ in range(_heads(request))),
        iterations=recipe.iterations,
        batch=recipe.batch,
        **vars(USUAL),
    )
    progress.note("measuring how fast the encoder is, where its checkpoint is there")
    machine, size = encode_rate(machine, config, name, work, None, place, request.checkpoint)
    if size is None:
        return _Found(work, recipe, "assumed: ViT-B/16, no store is there yet"), machine
    work = replace(work, **vars(size), vector_bytes=_vector_bytes(size.width, storage))
    return _Found(work, recipe, f"{name}, no store is there yet"), machine


def _vector_bytes(width: int, storage: str) -> int:
    """Bytes on disk of one token's vector."""
    from pa.data.store import shards

    return shards.disk_shape((width,), storage)[0] * shards.DISK_DTYPES[storage].itemsize


def _from_stores(config: Config, request: SegmentationRequest, train: Store, test: Store) -> _Found:
    """Sizes of stores that are there."""
    from pa.probe.segmentation.batches import grid_of
    from pa.probe.segmentation.costs import Workload
    from pa.probe.segmentation.labels import WindowRows, survey

    maps = label_maps(config, request, train.spec.dataset, source_of(train))
    recipe = make_recipe(request, train.encoder)
    crop = int(train.spec.view["crop"])
    grid, width = grid_of(train, recipe.representation)
    shape = train.shape(recipe.representation)
    layers = shape[0] if len(shape) == 3 else 1
    built: dict[str, Any] = train.spec.encoder.get("architecture", {})
    windows = WindowRows.of(train)
    seen = survey(maps[0], windows, Silent())
    work = Workload(
        train_images=len(windows.images),
        test_images=test.spec.rows["n_images"],
        test_windows=test.n_rows,
        crop=crop,
        patch=crop // grid,
        width=width // layers,
        depth=int(built.get("depth", USUAL.depth)),
        layers=layers,
        vector_bytes=_vector_bytes(width // layers, train.spec.precision["storage"]),
        classes=tuple(len(one.classes) for one in maps for _ in range(_heads(request))),
        iterations=recipe.iterations,
        batch=recipe.batch,
        labelled=float(seen.pixels.sum() / (len(windows) * crop**2)),
    )
    return _Found(work, recipe, f"of {train.title}", train, maps)
