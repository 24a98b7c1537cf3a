"""`pa probe`: parse, call one function of `pa.commands.probe`, print."""

from __future__ import annotations

from typing import Any

import click

from pa import console, describe_probe
from pa.options import choosing_store, emit, with_config, with_json


@click.group()
def probe() -> None:
    """Train light classifiers on stored features."""


@probe.command("linear")
@click.option("--encoder", help="Encoder of the stores.")
@choosing_store
@click.option("--train-split", help="Split to train on …")
@click.option("--test-split", help="… and split to score.")
@click.option("--train-where", help="Rows to train on, as SQL over the rows: 'x1 <= 112' …")
@click.option("--test-where", help="… and rows to score: 'x0 >= 112'.")
@click.option("--where", help="Rows to use at all, as SQL over the rows.")
@click.option("--target", help="Column of the rows to predict; default label.")
@click.option("--representation", help="cls, pooled, projected; default cls where there is one.")
@click.option(
    "--test-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of each class's images held out, where nothing else divides the rows.",
)
@click.option("--lr", type=float, help="Learning rate; the paper's is 0.4.")
@click.option("--epochs", type=int, help="Epochs; the paper's are 90.")
@click.option("--batch", type=int, help="Batch size; the paper's is 1024.")
@click.option("--weight-decay", type=float, help="Weight decay; the paper's is 0.")
@click.option("--momentum", type=float, help="Momentum; the paper's is 0.9.")
@click.option("--seed", type=int, help="Seed of first weights, order and held-out images.")
@click.option("--device", help="auto, cpu, cuda …")
@with_json
@with_config
def probe_linear(config: Any, as_json: bool, **given: Any) -> None:
    """Train a linear classifier on stored features and score it.

    Train and test are two splits, two conditions on the rows of one store, or (by default) images
    held out from one store. The defaults are the paper's recipe.

    \b
    pa probe linear
    pa probe linear --train-split train --test-split val --representation pooled
    pa probe linear --train-where "x1 <= 112" --test-where "x0 >= 112"
    """
    from pa.commands.probe import ProbeRequest
    from pa.commands.probe import probe_linear as work

    recipe = ("lr", "epochs", "batch", "weight_decay", "momentum", "seed")
    changes = tuple((name, value) for name in recipe if (value := given.pop(name)) is not None)
    result = work(config, ProbeRequest(changes=changes, **given), console.progress())
    if as_json:
        emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(describe_probe.linear(result))
