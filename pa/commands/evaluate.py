"""`pa evaluate`: parse, call one function of `pa.tasks.evaluate`, print."""

from __future__ import annotations

from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import PATH, choosing_store, emit, listed, with_config, with_json


@click.group()
def evaluate() -> None:
    """Score stored features: nothing is trained."""


@evaluate.command("retrieval")
@click.option("--encoder", "encoders", callback=listed, help="Encoder, or several with commas.")
@click.option(
    "--representation",
    "representations",
    callback=listed,
    help="cls, pooled, projected, with commas. Default: all that are there.",
)
@choosing_store
@click.option("--target", default="label", show_default=True, help="Column of what is alike.")
@click.option(
    "--include-self/--exclude-self",
    default=None,
    help="Whether a query is its own candidate. Default: paper excludes, released includes.",
)
@click.option("--layers", help="Scores of single blocks too: all, or 2,5,8,11.")
@click.option("--device", help="auto, cpu, cuda …")
@click.option("--figure", type=PATH, help="Draw the scores, or with --layers the curve by depth.")
@with_json
@with_config
def evaluate_retrieval(config: Any, as_json: bool, **given: Any) -> None:
    """Part retrieval: the average precision of every patch as a query against all others.

    The encoded part (cls, pooled) and the projected part of the paper's Table 3. Each score has
    its chance level (the expected AP of a random ranking), an interval over images as queries and
    gallery, and the narrower one that holds the gallery fixed.

    \b
    pa evaluate retrieval --encoder mocov3,dino --dataset cub
    pa evaluate retrieval --encoder dino --dataset coco --protocol released
    pa evaluate retrieval --encoder dino --layers all --figure depth.pdf
    """
    from pa.commands import text_evaluate as describe_evaluate
    from pa.tasks.evaluate import EvaluateRequest
    from pa.tasks.evaluate import evaluate_retrieval as work

    table = work(config, EvaluateRequest(**given), console.progress())
    if as_json:
        emit({**table.to_json(), "figure": str(given["figure"]) if given["figure"] else None})
    else:
        console.out(describe_evaluate.retrieval(table, given["figure"]))


@evaluate.command("neighbours")
@click.option("--encoder", "encoders", callback=listed, help="Encoder, or several with commas.")
@click.option(
    "--representation",
    "representations",
    callback=listed,
    help="cls, pooled, projected, with commas. Default: all that are there.",
)
@choosing_store
@click.option("-k", "k", type=int, help="How many neighbours; default 24, or all others if fewer.")
@click.option("--figure", type=PATH, help="Draw the shares as stacked bars.")
@click.option("--hubs", type=PATH, help="Draw the patches that are most often a neighbour.")
@click.option("--root", type=PATH, help="Where the images lie now, for --hubs.")
@with_json
@with_config
def evaluate_neighbours(config: Any, as_json: bool, **given: Any) -> None:
    """Part against whole: what the nearest neighbours of every part patch are.

    Shares of the same part of other objects, of other parts of the same object or class, and what
    chance gives; with a projector, how projection moves them (the paper's Figure 4, as numbers).

    \b
    pa evaluate neighbours --encoder mocov3,dino --dataset cub --figure shares.pdf
    pa evaluate neighbours -k 24 --hubs hubs.png
    """
    from pa.commands import text_evaluate as describe_evaluate
    from pa.tasks.evaluate import EvaluateRequest
    from pa.tasks.evaluate import evaluate_neighbours as work

    table = work(config, EvaluateRequest(**given), console.progress())
    figures = [given["figure"], given["hubs"]]
    if as_json:
        emit({**table.to_json(), "figures": [str(path) for path in figures if path]})
    else:
        console.out(describe_evaluate.neighbours(table, figures))
