"""`pa plan probe segmentation`: bytes, memory and recorded time of a segmentation probe."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options
from pa.commands.plan.work import recorded_seconds
from pa.commands.probe.segmentation import recipe_options
from pa.commands.probe.segmentation_inputs import (
    SegmentationInputs,
    choose_stores,
    dataset_splits,
    encoder_names,
    inputs_options,
    label_maps,
    refuse_repeated,
    source_root,
)
from pa.errors import MissingError, PaError, UsageError

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.evaluate.results import SegmentationProbeResult
    from pa.probe.segmentation.plan import SegmentationPlan
    from pa.probe.segmentation.recipes import RecipeOptions, SegmentationRecipe
    from pa.workspace import Workspace

PLAN_VIEWS = 10  # random crops per image: a tenth of the recipe's epochs fits on most disks
VIT_B = (768, 16)  # width and patch of ViT-B/16, the size of all encoders of the paper


@click.command("segmentation")
@options.encoders
@inputs_options
@recipe_options
@click.option("--checkpoint", type=options.PATH, help="Weights of the encoder, for its size.")
@click.option(
    "--plan-views",
    type=click.IntRange(1),
    default=PLAN_VIEWS,
    show_default=True,
    help="Random crops of each training image to plan with.",
)
@options.as_json
@options.workspace
def plan_segmentation(
    workspace: Workspace,
    encoders: tuple[str, ...],
    inputs: SegmentationInputs,
    recipe_options: RecipeOptions,
    checkpoint: Path | None,
    plan_views: int,
    as_json: bool,
) -> None:
    """Cost of a segmentation head, with stored features and with --online.

    Sizes are those of the stores if they exist, else of the dataset and the encoder's checkpoint;
    without a checkpoint the encoder is assumed to be a ViT-B/16. Times are scaled from the last
    recorded runs of the workspace and are unknown without them.
    """
    from pa.data.files import free_bytes
    from pa.probe.segmentation.plan import Workload, plan_segmentation
    from pa.probe.segmentation.run import TASK

    inputs.check()
    refuse_repeated("--lr", recipe_options.lrs)
    refuse_repeated("--init-seeds", recipe_options.init_seeds)
    names = encoder_names(workspace, inputs, encoders)
    if len(names) > 1:
        raise UsageError(f"a plan is for one encoder, not for {len(names)}: --encoder {names[0]}.")
    recipe = recipe_options.recipe(names[0] or "")
    try:
        stores = choose_stores(workspace, inputs, names[0], recipe.representation)
    except MissingError:
        features, encoder = _of_dataset(workspace, inputs, recipe, names[0], checkpoint)
    else:
        recipe = recipe_options.recipe(stores[0].encoder)
        features = _of_stores(workspace, inputs, recipe, *stores)
        encoder = f"of {stores[0].title}"
    classes = [n for n in features.pop("classes") for _ in range(recipe_options.heads_per_set)]
    work = Workload(
        **features, classes=tuple(classes), iterations=recipe.iterations, batch=recipe.batch
    )

    results = workspace.config.results
    classes_of = _classes_by_run(results / TASK)

    def work_of(result: SegmentationProbeResult) -> float | None:
        if result.representation != recipe.representation:
            return None
        protocol, classes = result.protocol.parameters, classes_of[_run_of(result)]
        return float(protocol["iterations"] * protocol["batch"] * classes)

    n_trained = work.iterations * work.batch * sum(work.classes)
    plan = plan_segmentation(
        work,
        encoder,
        plan_views,
        free_bytes(workspace.config.features),
        windows_per_second=_windows_per_second(workspace, names[0]),
        train_seconds=recorded_seconds(results, TASK, n_trained, work_of, stage="train"),
    )
    if as_json:
        options.emit(plan.to_json())
    else:
        console.out(_text(plan))


def _of_stores(
    workspace: Workspace,
    inputs: SegmentationInputs,
    recipe: SegmentationRecipe,
    train: Store,
    test: Store,
) -> dict[str, Any]:
    """Return the fields of a workload that stored features determine."""
    from pa.probe.segmentation.batches import grid_of

    grid, width = grid_of(train, recipe.representation)
    shape = train.shape(recipe.representation)
    layers = shape[0] if len(shape) == 3 else 1  # (K, L, D) or (L, D)
    maps = label_maps(workspace, inputs, train.spec.dataset, source_root(train))
    return {
        "train_images": train.spec.rows["n_images"],
        "test_images": test.spec.rows["n_images"],
        "test_windows": test.n_rows,
        "crop": int(train.spec.view["crop"]),
        "tokens": grid**2,
        "width": width // layers,
        "layers": layers,
        "vector_bytes": _vector_bytes(width // layers, train.spec.precision["storage"]),
        "classes": [len(labels.classes) for labels in maps],
    }


def _of_dataset(
    workspace: Workspace,
    inputs: SegmentationInputs,
    recipe: SegmentationRecipe,
    name: str | None,
    checkpoint: Path | None,
) -> tuple[dict[str, Any], str]:
    """Return the same before anything is extracted, and the origin of the encoder's size."""
    from pa.data.views.windows import windows_for
    from pa.workspace import EncoderOptions

    train, test = (
        workspace.images(inputs.dataset, split=split, root=inputs.root)
        for split in dataset_splits(workspace, inputs)
    )
    maps = label_maps(workspace, inputs, train.dataset, train.root)
    view = windows_for(workspace.dataset_kind(train.dataset))
    width, patch = VIT_B
    tokens, origin = (view.crop // patch) ** 2, "assumed: ViT-B/16, no store exists yet"
    file = workspace.checkpoint(name, checkpoint) if name else None
    if name is not None and file is not None and file.is_file():
        encoder = workspace.encoder(name, EncoderOptions(checkpoint=checkpoint, device="cpu"))
        tokens, width = encoder.representations_at(view.crop)["patch"]
        origin = f"{name}, no store exists yet"
    return {
        "train_images": len(train.table),
        "test_images": len(test.table),
        "test_windows": len(view.rows(test)),
        "crop": view.crop,
        "tokens": tokens,
        "width": width,
        "layers": 4 if recipe.representation == "layers" else 1,  # blocks 3, 5, 7, 11
        "vector_bytes": _vector_bytes(width, workspace.settings.storage),
        "classes": [len(labels.classes) for labels in maps],
    }, origin


def _run_of(result: SegmentationProbeResult) -> str:
    """Return what identifies the run of a result: its heads share one measured time."""
    return repr((result.stores, result.seconds))


def _classes_by_run(folder: Path) -> Counter[str]:
    """Return the number of classes that the heads of each recorded run have together."""
    from pa.evaluate.result_files import read_result

    n_classes: Counter[str] = Counter()
    for path in folder.glob("*.json"):
        with contextlib.suppress(PaError):  # damaged
            result: Any = read_result(path).result
            n_classes[_run_of(result)] += result.counts.classes
    return n_classes


def _vector_bytes(width: int, storage: str) -> int:
    """Return the bytes on disk of one token's vector."""
    from pa.data.store import shards

    return math.prod(shards.disk_shape((width,), storage)) * shards.DISK_DTYPES[storage].itemsize


def _windows_per_second(workspace: Workspace, encoder: str | None) -> float | None:
    """Return the throughput of the longest recorded extraction of windows; None without one."""
    from pa.data.store import find
    from pa.data.store.find import StoreSelector
    from pa.data.store.throughput import recorded_throughput

    features = workspace.config.features
    for store in find.find(features, StoreSelector(view="windows", encoder=encoder)):
        if (throughput := recorded_throughput(features, store.spec)) is not None:
            return throughput.rows_per_second
    return None


def _text(plan: SegmentationPlan) -> str:
    work = plan.work
    rows = []
    for strategy in plan.strategies:
        fits = "" if strategy.bytes <= plan.free else " (does not fit)"
        times = (strategy.encode_seconds, strategy.train_seconds, strategy.seconds)
        rows.append(
            [
                strategy.name,
                f"{strategy.windows:,}",
                console.size(strategy.bytes) + fits,
                *("unknown" if time is None else console.duration(time) for time in times),
            ]
        )
    best = plan.recommended
    reason = "fewest windows to encode" if best.seconds is None else "shortest time"
    return "\n".join(
        [
            f"segmentation plan · {work.train_images:,} training images, {work.test_images:,} test "
            f"images in {work.test_windows:,} windows of {work.crop} pixels",
            f"  encoder {plan.encoder}: {work.tokens} tokens, {work.layers} × {work.width} values, "
            f"{console.size(work.window_bytes)} per window",
            f"  heads: {len(work.classes)}, of {', '.join(map(str, dict.fromkeys(work.classes)))} "
            f"classes; {work.iterations:,} iterations of {work.batch} windows "
            f"({work.epochs:,.3g} epochs)",
            f"  peak memory of the arrays: {console.size(work.memory)}; free on the disk: "
            f"{console.size(plan.free)}",
            "",
            console.table(
                ["strategy", "windows", "on disk", "encode", "train", "total"], rows, " rrrrr"
            ),
            "",
            f"recommended: {best.name} ({reason} of those with random crops that fit)",
        ]
    )
