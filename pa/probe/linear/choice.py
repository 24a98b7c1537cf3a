"""Choose hyper-parameters, and never by the rows that are reported.

The rows that choose are a part of the training rows held out (whole images, stratified by class,
seeded), or a split of its own. All candidates train on the rest together; the setting with the best
mean accuracy over the seeds wins, the lower mean loss deciding between equals. The reported heads
are then trained anew on all training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from pa.errors import UsageError
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.sweep import Grid, TrainedHead, surviving, train_stack
from pa.probe.selection import Side
from pa.probe.validation import ValidationSplit
from pa.progress import Progress

CURE = "Choose by a split of its own: --select-split NAME."
SETTING = ("representation", "lr", "weight_decay")


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, how, and what every candidate scored.

    `surface` has a row for each candidate: representation, lr, weight_decay, seed, rate (of a
    step), accuracy and loss on the rows that chose, train_loss of the last epoch, diverged (epoch
    from 1, or null), chosen.
    """

    representation: str
    lr: float
    weight_decay: float
    validation: ValidationSplit
    surface: pl.DataFrame

    def settings(self) -> pl.DataFrame:
        """Mean, standard deviation and number of finite seeds of each setting, the best first."""
        return _means(self.surface)


def choose(
    validation: ValidationSplit,
    grid: Grid,
    recipe: LinearRecipe,
    *,
    device: str,
    progress: Progress,
) -> Choice:
    """Train every candidate and choose a setting. A setting of which a seed diverged is not chosen.

    Raises `UsageError` where every setting diverges.
    """
    heads = train_stack(
        validation.read,
        grid.candidates(),
        recipe,
        watch=False,
        device=device,
        progress=progress,
        title=f"sweeping {grid.n_settings * len(grid.seeds)} linear heads",
    )
    surviving(heads, recipe)
    table = pl.DataFrame([_row(head, validation.score, recipe) for head in heads], _SCHEMA)
    best = _means(table).filter(pl.col("n_diverged") == 0)
    if best.is_empty():
        raise UsageError(
            "every setting of the sweep diverged for one seed or more. Lower the learning rates "
            "with --lr."
        )
    chosen = best.row(0, named=True)
    is_chosen = pl.all_horizontal(*(pl.col(name) == chosen[name] for name in SETTING))
    return Choice(
        representation=chosen["representation"],
        lr=chosen["lr"],
        weight_decay=chosen["weight_decay"],
        validation=validation,
        surface=table.with_columns(is_chosen.alias("chosen")),
    )


_SCHEMA: dict[str, Any] = {
    "representation": pl.String,
    "lr": pl.Float64,
    "weight_decay": pl.Float64,
    "seed": pl.Int64,
    "rate": pl.Float64,
    "accuracy": pl.Float64,
    "loss": pl.Float64,
    "train_loss": pl.Float64,
    "diverged": pl.Int64,
}


def _row(head: TrainedHead, side: Side, recipe: LinearRecipe) -> dict[str, Any]:
    lost = head.diverged is not None
    return {
        "representation": head.candidate.representation,
        "lr": head.candidate.lr,
        "weight_decay": head.candidate.weight_decay,
        "seed": head.candidate.seed,
        "rate": recipe.rate(head.candidate.lr),
        "accuracy": None if lost else float((head.predicted == side.targets).mean()),
        "loss": None if lost else head.test_loss,
        "train_loss": None if lost else float(head.train_loss[-1]),
        "diverged": head.diverged,
    }


def _means(surface: pl.DataFrame) -> pl.DataFrame:
    return (
        surface.group_by(SETTING, maintain_order=True)
        .agg(
            pl.col("accuracy").mean(),
            pl.col("accuracy").std().alias("std"),
            pl.col("loss").mean(),
            pl.col("diverged").count().alias("n_diverged"),
        )
        .sort("accuracy", "loss", descending=[True, False], nulls_last=True, maintain_order=True)
    )
