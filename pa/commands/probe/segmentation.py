"""`pa probe segmentation`: train and score a 1×1 convolution on stored windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.probe.rows import protocol_text
from pa.commands.probe.segmentation_inputs import (
    SegmentationInputs,
    Sources,
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
    from pa.probe.segmentation.run import SegmentationResult
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


@dataclass(frozen=True)
class Online:
    """Whether and how to encode during training."""

    online: bool
    n_views: int | None  # crops of each training image
    limit: int | None
    checkpoint: Path | None

    def check(self, inputs: SegmentationInputs, n_encoders: int) -> None:
        """Raise `UsageError` for options that contradict each other."""
        if self.online and (inputs.train_store or inputs.test_store):
            raise UsageError(
                "--online encodes during training and reads no --train-store or --test-store."
            )
        for option, value in (("--views", self.n_views), ("--limit", self.limit)):
            if value is not None and not self.online:
                raise UsageError(
                    f"{option} {value} is for --online. Stored features were selected by their "
                    f"extraction: pa extract {option} {value}."
                )
        if self.checkpoint is not None and not self.online:
            raise UsageError("--checkpoint is for --online: stored features need no weights.")
        if self.checkpoint is not None and n_encoders > 1:
            raise UsageError(f"--checkpoint is one file, but {n_encoders} encoders were requested.")


online_options = options.Group(
    "online",
    Online,
    click.Option(["--online"], is_flag=True, help="Encode during training; store no features."),
    click.Option(
        ["--views", "n_views"],
        type=click.IntRange(1),
        help="With --online: crops of each training image. Default: 1, the plain image.",
    ),
    click.Option(
        ["--limit"], type=click.IntRange(1), help="With --online: the first N images only."
    ),
    click.Option(
        ["--checkpoint"], type=options.PATH, help="With --online: weights of the encoder."
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
@online_options
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
    online: Online,
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
    from pa.probe.segmentation import run
    from pa.progress import Named
    from pa.workspace import EncoderOptions

    inputs.check()
    refuse_repeated("--lr", recipe_options.lrs)
    refuse_repeated("--init-seeds", recipe_options.init_seeds)
    names = encoder_names(workspace, inputs, encoders)
    online.check(inputs, len(names))
    torch_device = workspace.device(device)
    folder = workspace.config.figures / run.TASK
    if figures is not None:
        run.check_writable(folder)
    # Stores of all encoders are resolved before the first training.
    stores: dict[str | None, Sources] = {}
    for name in names:
        recipe = recipe_options.recipe(name or "")
        if not online.online:
            stores[name] = choose_stores(workspace, inputs, name, recipe.representation)
    results: list[tuple[SegmentationResult, Path | None]] = []
    for name in names:
        if online.online:
            network = EncoderOptions(checkpoint=online.checkpoint, device=device)
            representation = recipe_options.recipe(name or "").representation
            stores[name] = live_stores(
                workspace, inputs, name, representation, network, online.n_views, online.limit
            )
        train, test = stores.pop(name)
        recipe = recipe_options.recipe(train.encoder)
        trained = run.run_segmentation(
            train,
            test,
            label_maps(workspace, inputs, train.spec.dataset, source_root(train)),
            workspace.config.results,
            run.SegmentationOptions(
                recipe,
                tuple(recipe_options.variants(recipe)),
                test_fraction,
                ceiling,
                figures or 0,
                inputs.root or source_root(test),
                online.online,
                torch_device,
            ),
            Named(workspace.progress, train.label),
        )
        figure = None
        if trained.shown:
            from pa.figures.segmentation import draw_run

            figure = folder / f"{trained.results[0].result.name}.png"
            draw_run(figure, trained)
        results += [(result, figure) for result in trained.results]
    if as_json:
        heads = [{**result.to_json(), "figure": f and str(f)} for result, f in results]
        options.emit({"heads": heads})
    else:
        console.out("\n\n".join(_result_text(result, figure) for result, figure in results))


def _result_text(result: SegmentationResult, figure: Path | None) -> str:
    """Return the scores of a head, with what is needed to judge them."""
    record, score = result.result, result.score
    counts = record.counts
    train, test = record.stores.train, record.stores.test
    curve, recipe = record.details["train_loss"], protocol_text(record.protocol)
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
