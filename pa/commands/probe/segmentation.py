"""`pa probe segmentation`: train and score a 1×1 convolution on stored windows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.probe.segmentation_inputs import (
    SegmentationInputs,
    choose_stores,
    encoder_names,
    inputs_options,
    label_maps,
    live_stores,
    refuse_repeated,
    source_root,
)
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.probe.segmentation.recipes import RecipeOptions
    from pa.probe.segmentation.record import SegmentationResult
    from pa.probe.segmentation.run import SegmentationRun
    from pa.workspace import Workspace

CLASSES_SHOWN = 5  # largest classes in the terminal; the table file has all


# Shared with `pa plan probe segmentation`.
recipe_options = options.Group(
    "recipe_options",
    "pa.probe.segmentation.recipes:RecipeOptions",
    click.Option(
        ["--protocol"], default="paper", show_default=True, help="Recipe: paper or released."
    ),
    click.Option(["--iterations"], type=int, help="Iterations. Default: 160000."),
    click.Option(
        ["--lr", "lrs"],
        callback=options.reals,
        help="Learning rates, separated by commas. Default: 4e-4.",
    ),
    click.Option(
        ["--init-seeds"],
        callback=options.numbers,
        help="Seeds of initial weights, separated by commas.",
    ),
    click.Option(["--batch"], type=int, help="Windows per iteration. Default: 16."),
    click.Option(["--seed"], type=int, help="Seed of the order of windows and of held-out images."),
    click.Option(
        ["--recipe", "changes"],
        multiple=True,
        callback=options.key_values,
        metavar="FIELD=VALUE",
        help="Any other field of the recipe; see docs/segmentation.md.",
    ),
)


@click.command()
@options.encoders
@inputs_options
@recipe_options
@click.option(
    "--test-fraction",
    type=float,
    help="Fraction of images held out if both splits are the same; 0 scores the training images. "
    "Default: 0.2.",
)
@click.option("--ceiling", is_flag=True, help="Also score the labels at token resolution.")
@click.option("--figures", type=click.IntRange(1), help="Number of images to draw.")
@click.option("--online", is_flag=True, help="Encode during training; store no features.")
@click.option(
    "--views",
    "n_views",
    type=click.IntRange(1),
    help="With --online: crops of each training image. Default: 1, the plain image.",
)
@click.option("--limit", type=click.IntRange(1), help="With --online: the first N images only.")
@click.option("--checkpoint", type=options.PATH, help="With --online: weights of the encoder.")
@click.option("--device", help="Device: auto, cpu, cuda or cuda:N.")
@options.as_json
@options.workspace
def segmentation(
    workspace: Workspace,
    encoders: tuple[str, ...],
    inputs: SegmentationInputs,
    recipe_options: RecipeOptions,
    test_fraction: float | None,
    ceiling: bool,
    figures: int | None,
    online: bool,
    n_views: int | None,
    limit: int | None,
    checkpoint: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Train a 1×1 convolution on stored windows and score its class maps.

    It is trained on the crops of one store of view windows, and scored on the sliding windows of
    another at the original size of the images. Several encoders are trained one after the other.
    Run the same command again to resume it.

    \b
    pa probe segmentation --dataset ade20k-part --encoder cae --protocol released
    pa probe segmentation --labels pascal-part --labels pascal-object --figures 6
    pa probe segmentation --dataset lip --encoder mae --online --views 20
    """
    from pa.probe.segmentation.record import TASK, check_writable
    from pa.probe.segmentation.run import run_segmentation
    from pa.progress import Named
    from pa.workspace import EncoderOptions

    inputs.check()
    if online and (inputs.train_store or inputs.test_store):
        raise UsageError(
            "--online encodes during training and reads no --train-store or --test-store."
        )
    for option, value in (("--views", n_views), ("--limit", limit)):
        if value is not None and not online:
            raise UsageError(
                f"{option} {value} is for --online. Stored features were selected by their "
                f"extraction: pa extract {option} {value}."
            )
    if checkpoint is not None and not online:
        raise UsageError("--checkpoint is for --online: stored features need no weights.")
    refuse_repeated("--lr", recipe_options.lrs)
    refuse_repeated("--init-seeds", recipe_options.init_seeds)
    names = encoder_names(workspace, inputs, encoders)
    if checkpoint is not None and len(names) > 1:
        raise UsageError(f"--checkpoint is one file, but {len(names)} encoders were requested.")
    torch_device = workspace.device(device)
    folder = workspace.config.figures / TASK
    if figures is not None:
        check_writable(folder)
    # Stores of all encoders are resolved before the first training.
    stores = []
    for name in names:
        recipe = recipe_options.recipe(name or "")
        if not online:
            stores.append(choose_stores(workspace, inputs, name, recipe.representation))
    runs: list[tuple[SegmentationRun, Path | None]] = []
    for number, name in enumerate(names):
        if online:
            network = EncoderOptions(checkpoint=checkpoint, device=device)
            representation = recipe_options.recipe(name or "").representation
            train, test = live_stores(
                workspace, inputs, name, representation, network, n_views=n_views or 1, limit=limit
            )
        else:
            train, test = stores[number]
        recipe = recipe_options.recipe(train.encoder)
        run = run_segmentation(
            train,
            test,
            label_maps(workspace, inputs, train.spec.dataset, source_root(train)),
            results=workspace.config.results,
            recipe=recipe,
            variants=recipe_options.variants(recipe),
            test_fraction=test_fraction,
            ceiling=ceiling,
            figures=figures or 0,
            image_root=inputs.root or source_root(test),
            online=online,
            device=torch_device,
            progress=Named(workspace.progress, train.label),
        )
        figure = None
        if run.shown:
            from pa.figures.segmentation import draw_run

            figure = folder / f"{run.results[0].result.name}.png"
            draw_run(figure, run)
        runs.append((run, figure))
    results = [(result, figure) for run, figure in runs for result in run.results]
    if as_json:
        heads = [{**result.to_json(), "figure": f and str(f)} for result, f in results]
        options.emit({"heads": heads})
    else:
        console.out("\n\n".join(_result_text(result, figure) for result, figure in results))


def _result_text(result: SegmentationResult, figure: Path | None) -> str:
    """Return the scores of a head, with what is needed to judge them."""
    record, score = result.result, result.score
    counts, changed = record.counts, record.protocol.changed
    train, test = record.stores.train, record.stores.test
    recipe = result.recipe.protocol
    if changed:
        recipe += " changed: " + ", ".join(f"{name}={value}" for name, value in changed.items())
    curve = record.details["train_loss"]
    n_empty = counts.train_windows_unlabelled, counts.test_images_unlabelled
    lines = [
        f"segmentation probe · {result.maps.name} · {record.representation} · {train.title}",
        *([f"  test: {test.title}"] if test.title != train.title else []),
        f"  images: {record.selection.rule}; train {counts.train_windows} windows of "
        f"{counts.train_images} images, test {counts.test_images} images, "
        f"{score.n_pixels:,} labelled pixels",
        f"  classes: {counts.classes} in the set, {counts.classes_trained} trained, "
        f"{counts.classes_scored} in the mean; chance level: always "
        f"{result.maps.classes[score.majority]!r}",
        f"  mIoU {score.miou}",
        f"  mAcc {score.macc}",
        f"  aAcc {score.aacc}",
    ]
    if any(n_empty):
        lines.append(
            f"  without a labelled pixel: {n_empty[0]} training windows, {n_empty[1]} test images"
        )
    if result.ceiling is not None:
        ceilings = result.ceiling.measures.items()
        values = ", ".join(f"{name} {100 * measure.value:.2f} %" for name, measure in ceilings)
        lines.append(f"  labels at token resolution: {values}")
    classes = score.table(result.maps.classes).sort("labelled", descending=True)
    classes = classes.filter(classes["labelled"] > 0)
    cells = []
    for row in classes.head(CLASSES_SHOWN).to_dicts():
        scores = ["" if row[k] is None else f"{100 * row[k]:.2f}" for k in ("iou", "acc")]
        cells.append([f"  {row['class']}", *scores, f"{row['labelled']:,}"])
    lines += [
        console.table(["  largest classes", "IoU %", "Acc %", "pixels"], cells, " rrr"),
        f"  loss: first {curve[0]:.4g}, last {curve[-1]:.4g}; protocol {recipe}",
        f"  {result.result_path}",
        f"  {result.table_path}",
        *([f"  {figure}"] if figure is not None else []),
    ]
    return "\n".join(lines)
