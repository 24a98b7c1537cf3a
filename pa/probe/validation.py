"""Rows that choose hyper-parameters: never the rows that are reported.

Validation rows are a held-out share of the training rows (whole images, stratified by class,
seeded), or a separate split. All candidates train on the other rows; the setting with the best mean
accuracy over the seeds wins, the lower mean loss breaking ties. The reported heads are then trained
again on all training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pa.data.schema import BOX
from pa.data.store.reader import Store
from pa.data.store.spec import Difference
from pa.errors import UsageError
from pa.probe.holdout import hold_out
from pa.probe.selection import LabelledRows, Side, Split, split_rows

SELECT_FRACTION = 0.2  # default share of each class's training images


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Options of a probe beyond one head of one recipe."""

    seeds: int = 1  # heads with the recipe's seed and the following ones; their mean is reported
    select_split: Store | None = None  # its rows choose; None holds training images out
    select_fraction: float = SELECT_FRACTION

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"the number of seeds must be 1 or more, not {self.seeds}.")


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


def validation_split(
    split: Split, options: ProbeOptions, seed: int, permitted: Sequence[Difference] = ()
) -> ValidationSplit:
    """Return the rows of `options.select_split`, or a share of the training images without one.

    Raise `UsageError` for a class with too few images and for validation rows that are test rows,
    and what `split_rows` raises.
    """
    fraction = options.select_fraction
    if options.select_split is not None:
        return _from_store(split, options.select_split, permitted)
    if not 0 < fraction < 1:
        raise UsageError(f"the select fraction must be between 0 and 1, not {fraction}.")
    side = split.train
    images = hold_out(
        side.images,
        side.targets,
        split.classes,
        fraction,
        seed,
        purpose="for validation",
        remedy="Choose on a separate split: --select-split NAME.",
    )
    held_out = np.isin(side.images, images)  # (N,)
    return ValidationSplit(
        side.part(~held_out), side.part(held_out), "held-out part of train", fraction
    )


def _from_store(split: Split, store: Store, permitted: Sequence[Difference]) -> ValidationSplit:
    score = split_rows(split.train.store, store, split.options, permitted).test
    regions, test_regions = (
        side.store.rows[side.rows].select("path", "file_bytes", *BOX)
        for side in (score, split.test)
    )
    n_shared = len(regions.join(test_regions, on=regions.columns, how="semi"))
    if n_shared:
        raise UsageError(
            f"{n_shared} rows of {store.title}, the split of --select-split, are test rows too: "
            f"hyper-parameters must not be chosen on the reported rows. Name another split, or "
            f"leave --select-split out to hold out a share of the training images."
        )
    return ValidationSplit(split.train, score, f"split {store.spec.split}", None)


def rank_settings(sweep: pl.DataFrame, setting: Sequence[str]) -> pl.DataFrame:
    """Summarise the candidates of each setting over their seeds, the best setting first.

    `sweep` has a row for each candidate: the columns of `setting`, accuracy and loss on the
    validation rows (null if it diverged), and the epoch in which it diverged (or null).
    """
    return (
        sweep.group_by(setting, maintain_order=True)
        .agg(
            pl.col("accuracy").mean(),
            pl.col("accuracy").std().alias("std"),
            pl.col("loss").mean(),
            pl.col("diverged").count().alias("n_diverged"),
        )
        .sort("accuracy", "loss", descending=[True, False], nulls_last=True, maintain_order=True)
    )


def mark_best(sweep: pl.DataFrame, setting: Sequence[str]) -> pl.DataFrame:
    """Add the column `chosen`: whether a candidate has the best setting without divergence.

    Raise `UsageError` where every setting diverged for a seed.
    """
    ranked = rank_settings(sweep, setting).filter(pl.col("n_diverged") == 0)
    if ranked.is_empty():
        raise UsageError(
            "every setting of the sweep diverged for one seed or more. Lower the learning rates "
            "with --lr."
        )
    best = ranked.row(0, named=True)
    return sweep.with_columns(chosen=pl.all_horizontal(pl.col(n) == best[n] for n in setting))
