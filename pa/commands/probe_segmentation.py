"""`pa probe segmentation`: parse, call one function of `pa.tasks`, print."""

from __future__ import annotations

from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import PATH, emit, key_values, listed, numbers, with_config, with_json
from pa.errors import UsageError


def rates(context: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Comma-separated positive numbers."""
    try:
        return tuple(float(part) for part in listed(context, option, value))
    except ValueError:
        raise click.BadParameter("numbers with commas, such as 1e-4,4e-4") from None


@click.command("segmentation")
@click.option("--encoder", help="Encoder of the stores; several with commas, one after the other.")
@click.option("--dataset", help="Dataset of the stores.")
@click.option("--train-split", help="Split to train on …")
@click.option("--test-split", help="… and split to score; default train and val.")
@click.option("--train-store", help="Fingerprint of the store to train on, or its beginning …")
@click.option("--test-store", help="… and of the store of sliding windows to score.")
@click.option("--root", type=PATH, help="Where images and masks lie now, if not as extracted.")
@click.option(
    "--labels",
    multiple=True,
    metavar="NAME[=DIR]",
    help="Label set of the same images; several times: all in one pass. Default: the dataset's.",
)
@click.option("--masks", type=PATH, help="Folder of index PNGs for any images …")
@click.option("--names", type=PATH, help="… and a file of class names, one a line.")
@click.option("--protocol", default="paper", show_default=True, help="paper or released.")
@click.option("--iterations", type=int, help="Iterations; 160000 in both protocols.")
@click.option("--lr", "lrs", callback=rates, help="Learning rates, with commas; default 4e-4.")
@click.option("--init-seeds", callback=numbers, help="Seeds of first weights, with commas.")
@click.option("--batch", type=int, help="Windows per iteration; 16 in both protocols.")
@click.option("--seed", type=int, help="Seed of the order of windows and of held-out images.")
@click.option(
    "--recipe",
    "changes",
    multiple=True,
    callback=key_values,
    metavar="FIELD=VALUE",
    help="Any other field of the recipe: docs/segmentation.md.",
)
@click.option(
    "--test-fraction",
    type=float,
    help="Where both splits are one: share of images held out, 0.2 by default; 0 scores the "
    "training images.",
)
@click.option("--ceiling", is_flag=True, help="Also score labels brought to the tokens' grid.")
@click.option("--figures", type=click.IntRange(1), help="Draw this many images.")
@click.option("--online", is_flag=True, help="Encode on the fly: no store, nothing on disk.")
@click.option(
    "--views",
    type=click.IntRange(1),
    help="With --online: crops of each training image; default 1, the plain image.",
)
@click.option("--limit", type=click.IntRange(1), help="With --online: the first N images.")
@click.option("--checkpoint", type=PATH, help="With --online or --plan: weights.")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what it would cost.")
@click.option(
    "--plan-views",
    type=click.IntRange(1),
    help="With --plan: random crops of each image to count with; default 10.",
)
@click.option("--device", help="auto, cpu, cuda …")
@with_json
@with_config
def segmentation(
    config: Any, as_json: bool, only_plan: bool, plan_views: int | None, **given: Any
) -> None:
    """Train a 1×1 convolution on cached windows and score its class maps.

    Trains on the crops of one store of view windows, scores the sliding windows of another at the
    images' own size. A killed run goes on where it was.

    \b
    pa probe segmentation --dataset ade20k-part --encoder cae --protocol released
    pa probe segmentation --dataset ade20k-part --encoder cae --plan
    pa probe segmentation --labels pascal-part --labels pascal-object --figures 6
    pa probe segmentation --dataset lip --encoder mae --online --views 20
    """
    from pa.commands import text_segmentation as describe_segmentation
    from pa.tasks.probe_segmentation import SegmentationRequest
    from pa.tasks.probe_segmentation import probe_segmentation as work

    named = tuple((name, given.pop(name)) for name in ("batch", "seed"))
    changes = (*((name, value) for name, value in named if value is not None), *given["changes"])
    request = SegmentationRequest(**{**given, "changes": changes})
    if only_plan:
        from pa.tasks.plan_segmentation import plan_segmentation

        made = plan_segmentation(config, request, plan_views, console.progress())
        if as_json:
            emit(made.to_json())
        else:
            console.out(describe_segmentation.plan(made))
        return
    if plan_views is not None:
        raise UsageError("--plan-views is for --plan: say --plan too, or leave it out.")
    found = work(config, request, console.progress())
    if as_json:
        heads = [
            {**result.to_json(), "figure": figure and str(figure)}
            for run, figure in found
            for result in run.results
        ]
        emit({"heads": heads})
    else:
        console.out(describe_segmentation.results(found))
