"""`pa probe`: parse, call one function of `pa.tasks.probe…`, print."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pa.commands import console
from pa.commands.old_options import (
    PATH,
    box,
    choosing_store,
    emit,
    listed,
    naming_checkpoints,
    numbers,
    with_config,
    with_json,
)
from pa.commands.probe_segmentation import segmentation

F = TypeVar("F", bound=Callable[..., Any])

SEEDS = click.IntRange(1, 1000)
RECIPE = ("epochs", "batch", "momentum", "bn_eval", "seed")
ATTENTIVE_RECIPE = (*RECIPE, "weight_decay", "attention_heads", "precision", "order_seed")


@click.group()
def probe() -> None:
    """Train light classifiers on stored features."""


probe.add_command(segmentation)


def reals(context: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Comma-separated numbers."""
    try:
        found = tuple(float(part) for part in listed(context, option, value))
    except ValueError:
        found = (math.nan,)
    if not all(math.isfinite(number) for number in found):
        raise click.BadParameter("numbers with commas, such as 0.1,0.4,1")
    return found


def changed(given: dict[str, Any], names: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """Take the fields of a recipe out of a command's options: those that were given a value."""
    return tuple((name, value) for name in names if (value := given.pop(name)) is not None)


def choosing_rows(command: F) -> F:
    """Give a command the options that say which rows train and which are tested."""
    for option in reversed(
        [
            click.option("--encoder", help="Encoder of the stores."),
            choosing_store,
            click.option("--train-split", help="Split to train on …"),
            click.option("--test-split", help="… and split to score."),
            click.option("--train-where", help="Rows to train on, as SQL: 'x1 <= 112' …"),
            click.option("--test-where", help="… and rows to score: 'x0 >= 112'."),
            click.option("--where", help="Rows to use at all, as SQL over the rows."),
            click.option("--target", help="Column of the rows to predict; default label."),
            click.option(
                "--test-fraction",
                type=float,
                default=0.2,
                show_default=True,
                help="Share of each class's images held out, where nothing else divides the rows.",
            ),
            click.option("--device", help="auto, cpu, cuda …"),
        ]
    ):
        command = option(command)
    return command


@probe.command("linear")
@choosing_rows
@click.option(
    "--representation", callback=listed, help="cls, pooled, projected, cls+pooled; default cls."
)
@click.option("--lr", callback=reals, help="Learning rate, or several; the paper's is 0.4.")
@click.option("--weight-decay", callback=reals, help="Weight decay; the paper's is 0.")
@click.option("--epochs", type=int, help="Epochs; the paper's are 90.")
@click.option("--batch", type=int, help="Batch size; the paper's is 1024.")
@click.option("--momentum", type=float, help="Momentum; the paper's is 0.9.")
@click.option("--bn-eval", help="Statistics of a BatchNorm at test: running or batch.")
@click.option("--seed", type=int, help="Seed of first weights, order and held-out images.")
@click.option(
    "--seeds", type=SEEDS, default=1, show_default=True, help="How many seeds; 1000 at the most."
)
@click.option("--sweep", is_flag=True, help="Train all values given and choose the best.")
@click.option("--select-split", help="Split to choose by; default a part of the training images …")
@click.option(
    "--select-fraction", type=float, default=0.2, show_default=True, help="… of this share."
)
@click.option(
    "--references/--no-references",
    default=None,
    help="Ridge and logistic regression beside it; default where they take seconds.",
)
@click.option("--shots", callback=numbers, help="Learn from 1,5,10 regions of each class …")
@click.option("--draws", type=int, default=5, show_default=True, help="… drawn so often.")
@click.option("--figure", type=PATH, help="Draw confusion, curves and sweep: .png, .pdf, .svg.")
@with_json
@with_config
def probe_linear(config: Any, as_json: bool, **given: Any) -> None:
    """Train linear classifiers on stored features and score them.

    Train and test are two splits, two conditions on the rows of one store, or (by default) images
    held out from one store. The defaults are the paper's recipe; --protocol names another one
    (paper, released, imagenet, imagenet-cae) and, for view parts, the stores that go with it. A
    sweep chooses by rows that are not reported.

    \b
    pa probe linear
    pa probe linear --train-split train --test-split val --representation pooled --seeds 5
    pa probe linear --train-split train --test-split test --protocol released
    pa probe linear --lr 0.1,0.4,1 --representation cls,pooled --sweep --figure sweep.pdf
    pa probe linear --shots 1,5,10
    """
    from pa.commands import text_probe as describe_probe
    from pa.tasks.probe import ProbeRequest
    from pa.tasks.probe import probe_linear as work

    changes = changed(given, RECIPE)
    result = work(config, ProbeRequest(changes=changes, **given), console.progress())
    if as_json:
        emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(describe_probe.trained(result))


@probe.command("knn")
@choosing_rows
@click.option("--representation", help="cls, pooled, projected; default cls where there is one.")
@click.option("-k", "k", callback=numbers, help="Neighbours; default 10,20,100,200.")
@click.option(
    "--temperature", type=float, default=0.07, show_default=True, help="Votes: exp(cosine / T)."
)
@click.option("--seed", type=int, default=0, help="Seed of held-out images.")
@with_json
@with_config
def probe_knn(config: Any, as_json: bool, **given: Any) -> None:
    """Classify by weighted nearest neighbours, the protocol of DINO. Nothing is trained.

    --protocol names, for view parts, the stores that go together.

    \b
    pa probe knn --train-split train --test-split val
    """
    from pa.commands import text_probe as describe_probe
    from pa.tasks.probe_knn import KnnRequest
    from pa.tasks.probe_knn import probe_knn as work

    result = work(config, KnnRequest(**given), console.progress())
    if as_json:
        emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(describe_probe.knn(result))


@probe.command("predict")
@click.option("--image", type=PATH, required=True, help="An image of your own.")
@click.option("--box", callback=box, help="Region x0,y0,x1,y1 in its pixels; default all of it.")
@click.option(
    "--head", type=PATH, required=True, help="Trained head, .safetensors, or its result, .json."
)
@click.option("--device", help="auto, cpu, cuda …")
@naming_checkpoints
@with_json
@with_config
def probe_predict(config: Any, as_json: bool, **given: Any) -> None:
    """Classify a region of your own image with a trained head.

    The head lies beside the result of `pa probe linear`. The region is encoded by the encoder that
    made the features which the head was trained on.

    \b
    pa probe predict --image bird.jpg --box 40,60,96,116 --head results/probe-linear/….safetensors
    """
    from pa.commands import text_probe as describe_probe
    from pa.tasks.probe_predict import PredictRequest
    from pa.tasks.probe_predict import probe_predict as work

    found = work(config, PredictRequest(**given))
    if as_json:
        emit(found.to_json())
    else:
        console.out(describe_probe.prediction(found))


@probe.command("attentive")
@choosing_rows
@click.option("--lr", callback=reals, help="Learning rate; of several one is chosen. Paper: 0.04.")
@click.option("--weight-decay", type=float, help="Weight decay; the paper's is 0.")
@click.option("--epochs", type=int, help="Epochs; the paper's are 90.")
@click.option("--batch", type=int, help="Batch size; the paper's is 1024.")
@click.option("--momentum", type=float, help="Momentum; the paper's is 0.9.")
@click.option("--attention-heads", type=int, help="Heads of the attention; default width / 64.")
@click.option("--bn-eval", help="Statistics of the BatchNorm at test: running or batch.")
@click.option("--precision", help="Of the products with tokens: fp32 or bf16.")
@click.option("--seed", type=int, help="Seed of first weights and held-out images.")
@click.option(
    "--seeds", type=SEEDS, default=1, show_default=True, help="How many seeds; 1000 at the most."
)
@click.option("--order-seed", type=int, help="Seed of the order of rows, one for all heads.")
@click.option("--select-split", help="Split to choose by; default a part of the training images …")
@click.option(
    "--select-fraction", type=float, default=0.2, show_default=True, help="… of this share."
)
@click.option(
    "--memory", type=float, default=2.0, show_default=True, help="GB of patch tokens to keep."
)
@click.option("--resume/--no-resume", default=True, help="Go on with a run that was killed.")
@click.option("--figure", type=PATH, help="Draw confusion and curves: .png, .pdf, .svg.")
@with_json
@with_config
def probe_attentive(config: Any, as_json: bool, **given: Any) -> None:
    """Train attentive classifiers on stored class and patch tokens and score them.

    One learned query attends to the tokens of each region. Train and test are chosen as by `pa
    probe linear`, and --protocol names the recipe (paper, released, imagenet, imagenet-cae). Needs
    stores made with --features cls,patch.

    \b
    pa probe attentive --train-split train --test-split test --seeds 5
    pa probe attentive --lr 0.01,0.04,0.1 --seeds 3
    """
    from pa.commands import text_attentive as describe_attentive
    from pa.tasks.probe_attentive import AttentiveRequest
    from pa.tasks.probe_attentive import probe_attentive as work

    changes = changed(given, ATTENTIVE_RECIPE)
    result = work(config, AttentiveRequest(changes=changes, **given), console.progress())
    if as_json:
        emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(describe_attentive.attentive(result))
