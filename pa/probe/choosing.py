"""Choose hyper-parameters, and never by the rows that are reported.

The rows that choose are a part of the training rows held out (whole images, stratified by class,
seeded), or a split of its own. All candidates train on the rest together; the setting with the best
mean accuracy over the seeds wins, the lower mean loss deciding between equals. The reported heads
are then trained anew on all training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pa.data.schema import BOX
from pa.data.store.store import Store
from pa.errors import UsageError
from pa.probe.heldout import hold_out
from pa.probe.recipes import LinearRecipe
from pa.probe.selection import LabelledRows, Side, Split, split_rows
from pa.probe.sweep import Grid, TrainedHead, surviving, train_stack
from pa.progress import Progress

CURE = "Choose by a split of its own: --select-split NAME."
SETTING = ("representation", "lr", "weight_decay")


@dataclass(frozen=True, eq=False)
class Choosers:
    """The rows that choose: `fit` trains the candidates, `score` ranks them; `rule` says how."""

    fit: Side
    score: Side
    rule: str
    fraction: float | None

    def to_json(self) -> dict[str, Any]:
        """What determines the choice, with the store and the counts for the reader."""
        return {
            "rule": self.rule,
            "fraction": self.fraction,
            "store": self.score.store.title,
            "rows": len(self.score.rows),
            "images": self.score.n_images,
            "fit_rows": len(self.fit.rows),
        }

    def read(self, representation: str) -> tuple[LabelledRows, LabelledRows]:
        return self.fit.read(representation), self.score.read(representation)


def held_out_part(split: Split, fraction: float, seed: int) -> Choosers:
    """Hold a part of the training images out. Raises `UsageError` where a class has too few."""
    if not 0 < fraction < 1:
        raise UsageError(f"the select fraction must lie between 0 and 1, not {fraction}.")
    side = split.train
    images = hold_out(
        side.images, side.targets, split.classes, fraction, seed, "to choose by", CURE
    )
    chosen = np.isin(side.images, images)
    return Choosers(side.part(~chosen), side.part(chosen), "held-out part of train", fraction)


def other_split(split: Split, store: Store, permitted: Sequence[Any]) -> Choosers:
    """Choose by the rows of another store, which shares none with the test rows.

    Raises what `split_rows` raises, and `UsageError` for shared rows.
    """
    score = split_rows(split.train.store, store, split.options, permitted).test
    shared = _regions(score).join(_regions(split.test), on=_regions(score).columns, how="semi")
    if len(shared):
        raise UsageError(
            f"{len(shared)} rows of {store.title}, which --select-split chooses by, are test rows "
            f"too: what is chosen by the reporting rows cannot be reported on them. Name another "
            f"split, or leave --select-split out to hold a part of the training images out."
        )
    return Choosers(split.train, score, f"split {store.spec.split}", None)


def _regions(side: Side) -> pl.DataFrame:
    return side.store.rows[side.rows].select("path", "file_bytes", *BOX)


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
    choosers: Choosers
    surface: pl.DataFrame

    def settings(self) -> pl.DataFrame:
        """Mean, standard deviation and number of finite seeds of each setting, the best first."""
        return _means(self.surface)


def choose(
    choosers: Choosers,
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
        choosers.read,
        grid.candidates(),
        recipe,
        watch=False,
        device=device,
        progress=progress,
        title=f"sweeping {grid.n_settings * len(grid.seeds)} linear heads",
    )
    surviving(heads, recipe)
    table = pl.DataFrame([_row(head, choosers.score, recipe) for head in heads], _SCHEMA)
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
        choosers=choosers,
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
