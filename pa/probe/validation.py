"""Rows that choose hyper-parameters: never the rows that are reported.

Validation rows are a held-out share of the training rows (whole images, stratified by class,
seeded), or a separate split. All candidates train on the other rows; the setting with the best mean
accuracy over the seeds wins, the lower mean loss breaking ties. The reported heads are then trained
again on all training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import polars as pl

from pa.data.schema import BOX
from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.probe.holdout import hold_out
from pa.probe.recipes import SgdRecipe, permitted_differences
from pa.probe.selection import LabelledRows, Side, Split, split_rows
from pa.probe.training import TrainedHead

SELECT_FRACTION = 0.2  # default share of each class's training images

SETTING = ("representation", "lr", "weight_decay")  # the seeds of a setting share a mean
SWEEP: dict[str, Any] = {
    "representation": pl.String,
    "lr": pl.Float64,
    "weight_decay": pl.Float64,
    "seed": pl.Int64,
    "rate": pl.Float64,  # the largest of a step
    "accuracy": pl.Float64,  # on the validation rows; null if it diverged, as the two losses
    "loss": pl.Float64,
    "train_loss": pl.Float64,  # of the last epoch
    "diverged": pl.Int64,  # epoch, from 1
}


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Options of a probe that trains heads."""

    recipe: SgdRecipe
    seeds: int = 1  # heads with the recipe's seed and the following ones; their mean is reported
    select_split: Store | None = None  # its rows choose; None holds training images out
    select_fraction: float = SELECT_FRACTION

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"the number of seeds must be 1 or more, not {self.seeds}.")

    @property
    def seed_range(self) -> range:
        """The seeds of the heads."""
        return range(self.recipe.seed, self.recipe.seed + self.seeds)


@dataclass(frozen=True, eq=False)
class ValidationSplit:
    """Rows that fit the candidates of a choice, and rows that score them."""

    fit: Side
    score: Side
    rule: str  # how the rows were selected
    fraction: float | None  # share of the training images, if held out

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "fraction": self.fraction,
            "store": self.score.store.title,
            "rows": len(self.score.rows),
            "images": self.score.n_images,
            "fit_rows": len(self.fit.rows),
        }

    def read(self, representation: str) -> tuple[LabelledRows, LabelledRows]:
        """Read the features of both sides."""
        return self.fit.read(representation), self.score.read(representation)


def validation_split(split: Split, options: ProbeOptions) -> ValidationSplit:
    """Return the rows of `options.select_split`, or a share of the training images without one.

    Raise `UsageError` for a class with too few images and for validation rows that are test rows,
    and what `split_rows` raises.
    """
    fraction, store, side = options.select_fraction, options.select_split, split.train
    if store is None:
        if not 0 < fraction < 1:
            raise UsageError(f"the select fraction must be between 0 and 1, not {fraction}.")
        purpose, remedy = "for validation", "Choose on a separate split: --select-split NAME."
        labels = side.images, side.targets, split.classes
        images = hold_out(*labels, fraction, options.recipe.seed, purpose, remedy)
        held_out = np.isin(side.images, images)  # (N,)
        sides = side.part(~held_out), side.part(held_out)
        return ValidationSplit(*sides, "held-out part of train", fraction)
    permitted = permitted_differences(options.recipe.protocol)
    score = split_rows(side.store, store, split.options, permitted).test
    regions, test_regions = (
        s.store.rows[s.rows].select("path", "file_bytes", *BOX) for s in (score, split.test)
    )
    n_shared = len(regions.join(test_regions, on=regions.columns, how="semi"))
    if n_shared:
        raise UsageError(
            f"{n_shared} rows of {store.title}, the split of --select-split, are test rows too: "
            f"hyper-parameters must not be chosen on the reported rows. Name another split, or "
            f"leave --select-split out to hold out a share of the training images."
        )
    return ValidationSplit(side, score, f"split {store.spec.split}", None)


@dataclass(frozen=True, eq=False)
class Choice:
    """The results of all candidates on validation rows, and the setting that they choose."""

    validation: ValidationSplit
    sweep: pl.DataFrame  # `SWEEP` and the column chosen, a row for each candidate

    @property
    def setting(self) -> dict[str, Any]:
        """Representation, learning rate and weight decay of the best setting."""
        return self.sweep.filter("chosen").select(SETTING).row(0, named=True)

    def settings(self) -> pl.DataFrame:
        """Summarise the candidates of each setting over their seeds, the best setting first."""
        return _rank(self.sweep)


def choose(validation: ValidationSplit, heads: Sequence[TrainedHead], recipe: SgdRecipe) -> Choice:
    """Choose the best setting of heads trained on `validation.fit`, which scored the other rows.

    A setting of which one seed diverged is never chosen. Raise `UsageError` where that leaves none.
    """
    rows = []
    for head in heads:
        accuracy = float((head.predicted == validation.score.targets).mean())
        scores = accuracy, head.test_loss, float(head.train_loss[-1])
        # Zeroed heads still predict a class: their accuracy means nothing.
        kept = (None, None, None) if head.diverged else scores
        rows.append(
            (*astuple(head.candidate), recipe.peak(head.candidate.lr), *kept, head.diverged)
        )
    sweep = pl.DataFrame(rows, SWEEP, orient="row")
    ranked = _rank(sweep).filter(pl.col("n_diverged") == 0)
    if ranked.is_empty():
        raise UsageError(
            "every setting of the sweep diverged for one seed or more. Lower the learning rates "
            "with --lr."
        )
    best = ranked.row(0, named=True)
    is_best = pl.all_horizontal(pl.col(name) == best[name] for name in SETTING)
    return Choice(validation, sweep.with_columns(chosen=is_best))


def _rank(sweep: pl.DataFrame) -> pl.DataFrame:
    return (
        sweep.group_by(SETTING, maintain_order=True)
        .agg(
            pl.col("accuracy").mean(),
            pl.col("accuracy").std().alias("std"),
            pl.col("loss").mean(),
            pl.col("diverged").count().alias("n_diverged"),
        )
        .sort("accuracy", "loss", descending=[True, False], nulls_last=True, maintain_order=True)
    )
