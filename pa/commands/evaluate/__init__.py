"""`pa evaluate`: score stored features without training."""

from __future__ import annotations

import click

from pa.commands.evaluate.neighbours import neighbours
from pa.commands.evaluate.retrieval import retrieval


@click.group(commands=[neighbours, retrieval])
def evaluate() -> None:
    """Score stored features without training."""
