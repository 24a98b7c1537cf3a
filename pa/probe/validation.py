"""Rows that choose hyper-parameters: never the rows that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pa.data.schema import BOX
from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.probe.holdout import hold_out
from pa.probe.selection import LabelledRows, Side, Split, split_rows

CURE = "Choose by a split of its own: --select-split NAME."


@dataclass(frozen=True, eq=False)
class ValidationSplit:
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


def hold_out_validation(split: Split, fraction: float, seed: int) -> ValidationSplit:
    """Hold a part of the training images out. Raises `UsageError` where a class has too few."""
    if not 0 < fraction < 1:
        raise UsageError(f"the select fraction must lie between 0 and 1, not {fraction}.")
    side = split.train
    images = hold_out(
        side.images, side.targets, split.classes, fraction, seed, "to choose by", CURE
    )
    chosen = np.isin(side.images, images)
    return ValidationSplit(
        side.part(~chosen), side.part(chosen), "held-out part of train", fraction
    )


def validation_from_store(split: Split, store: Store, permitted: Sequence[Any]) -> ValidationSplit:
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
    return ValidationSplit(split.train, score, f"split {store.spec.split}", None)


def _regions(side: Side) -> pl.DataFrame:
    return side.store.rows[side.rows].select("path", "file_bytes", *BOX)
