"""Which rows a probe learns from, and which it is scored on. Three ways, each named in the result:

    two stores   a training and a test split, encoded alike
    filters      two disjoint sets of rows of one store, each given by an SQL condition
    held out     a part of one store's images kept for the test, seeded, stratified by class

Rows of images that could not be read and rows without a label are left out and counted. Features
are read later and by row number, so a probe that streams them uses the same selection.

Shapes: N rows of a store, n rows of one side, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.schema import BOX
from pa.data.store.reader import Store
from pa.data.store.spec import Difference, describe
from pa.errors import FingerprintError, UsageError
from pa.probe.holdout import hold_out
from pa.probe.labels import (
    FILE,
    VALID,
    check_seen,
    class_indices,
    classes_of,
    is_usable,
    select_rows,
)

Ints = npt.NDArray[np.int64]

TWO_STORES, FILTERS, HELD_OUT = "two stores", "filters", "held out"


@dataclass(frozen=True)
class SplitOptions:
    """How rows are chosen.

    `target` is the column of the rows table to predict. The conditions are SQL expressions over
    that table ("x1 <= 112"): `where` holds for both sides, `train_where` and `test_where` for one.
    `test_fraction` and `seed` are used by the held-out split only.
    """

    target: str = "label"
    where: str | None = None
    train_where: str | None = None
    test_where: str | None = None
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise UsageError(
                f"the test fraction must lie between 0 and 1, not {self.test_fraction}."
            )


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Features in memory: `features` (n, D) float16 or float32, as they are stored; `targets` (n,)
    class indices, `images` (n,) image numbers, `rows` (n,) row ids; the last three int64."""

    features: npt.NDArray[Any]
    targets: Ints
    images: Ints
    rows: Ints


@dataclass(frozen=True, eq=False)
class Side:
    """The rows of one side, training or test, without their features.

    `rows`, `targets` (class indices) and `images` are (n,) int64. `n_bad` rows belong to images
    that could not be read and `n_unlabelled` have no label; both are left out.
    """

    store: Store
    rows: Ints
    targets: Ints
    images: Ints
    n_bad: int
    n_unlabelled: int

    @property
    def n_images(self) -> int:
        return len(np.unique(self.images))

    def read(self, representation: str) -> LabelledRows:
        """Read a one-vector representation, or several side by side: "cls+pooled".

        Half precision stays as it is: a million class tokens of width 768 are 1.5 GB. Raises
        `UnknownNameError` for one that is not stored, `UsageError` for a map of tokens.
        """
        parts = [self._vectors(name) for name in representation.split("+")]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return LabelledRows(features, self.targets, self.images, self.rows)

    def part(self, chosen: npt.NDArray[np.bool_]) -> Side:
        """The chosen rows (n,) bool of this side alone; nothing counts as left out."""
        return replace(
            self,
            rows=self.rows[chosen],
            targets=self.targets[chosen],
            images=self.images[chosen],
            n_bad=0,
            n_unlabelled=0,
        )

    def _vectors(self, representation: str) -> npt.NDArray[Any]:
        shape = self.store.shape(representation)
        if len(shape) != 1:
            vectors = [n for n, s in self.store.spec.representations.items() if len(s) == 1]
            raise UsageError(
                f"a linear probe needs one vector per row; {representation!r} is "
                f"{'×'.join(map(str, shape))}. One vector: {', '.join(vectors) or 'none stored'}."
            )
        return self.store.read(representation, self.rows)


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows over one list of class names, and the rule that chose them."""

    train: Side
    test: Side
    classes: tuple[str, ...]
    rule: str
    options: SplitOptions

    def to_json(self) -> dict[str, Any]:
        """The choices that took effect: a result is determined by them and the stores."""
        held_out = self.rule == HELD_OUT
        return {
            "rule": self.rule,
            "target": self.options.target,
            "where": self.options.where,
            "train_where": self.options.train_where,
            "test_where": self.options.test_where,
            "test_fraction": self.options.test_fraction if held_out else None,
            "seed": self.options.seed if held_out else None,
        }

    def counts(self) -> dict[str, int]:
        """Rows, images and rows left out on each side, and images that both sides see."""
        counts = {"classes": len(self.classes)}
        for name, side in (("train", self.train), ("test", self.test)):
            counts[f"{name}_rows"] = len(side.rows)
            counts[f"{name}_images"] = side.n_images
            counts[f"{name}_left_out_bad"] = side.n_bad
            counts[f"{name}_left_out_unlabelled"] = side.n_unlabelled
        counts["shared_images"] = len(_files(self.train).join(_files(self.test), on=FILE))
        return counts


def split_rows(
    train: Store,
    test: Store | None,
    options: SplitOptions,
    permitted: Sequence[Difference] = (),
) -> Split:
    """Choose training and test rows from one store (`test` None, or the same store) or from two.

    `permitted` are the differences between two stores that the recipe names: field, value of the
    training store, value of the test store.

    Raises `FingerprintError` for two stores that were encoded differently, `UnknownNameError` for
    a target column that is not there, and `UsageError` for a condition that cannot be read or
    selects nothing, for sides that share rows, for a test label that training never saw, and for
    classes with too few images to be held out.
    """
    if test is not None and test.fingerprint != train.fingerprint:
        rule, frames = TWO_STORES, _two_stores(train, test, options, permitted)
    elif options.train_where is not None or options.test_where is not None:
        rule, frames, test = FILTERS, _filters(train, options), train
    elif test is not None:
        raise UsageError(
            f"training and test split are the same store, {train.title}: the probe would be scored "
            f"on what it learnt. Name another --test-split, separate rows with --train-where and "
            f"--test-where, or leave --test-split out to hold images back."
        )
    else:
        rule, frames, test = HELD_OUT, _held_out(train, options), train
    classes = classes_of(frames[0], options.target)
    check_seen(frames[1], classes, options.target)
    sides = [
        _side(store, frame, classes, options.target)
        for store, frame in zip((train, test), frames, strict=True)
    ]
    return Split(sides[0], sides[1], classes, rule, options)


# -- the three ways; each gives the rows of both sides, those to be left out still among them ------

Frames = tuple[pl.DataFrame, pl.DataFrame]


def _two_stores(
    train: Store, test: Store, options: SplitOptions, permitted: Sequence[Difference]
) -> Frames:
    check_encoded_alike(train, test, permitted)
    frames = (
        select_rows(train, options.target, [options.where, options.train_where]),
        select_rows(test, options.target, [options.where, options.test_where]),
    )
    _refuse_shared(frames, [*FILE, *BOX], "Give two splits without common images")
    return frames


def _filters(store: Store, options: SplitOptions) -> Frames:
    if options.train_where is None or options.test_where is None:
        given, other = ("train", "test") if options.test_where is None else ("test", "train")
        raise UsageError(
            f"--{given}-where on one store needs --{other}-where too: which rows are the "
            f"{other} rows?"
        )
    frames = (
        select_rows(store, options.target, [options.where, options.train_where]),
        select_rows(store, options.target, [options.where, options.test_where]),
    )
    _refuse_shared(frames, ["row"], "Make the two conditions exclude each other")
    return frames


def _held_out(store: Store, options: SplitOptions) -> Frames:
    frame = select_rows(store, options.target, [options.where])
    usable = frame.filter(is_usable(options.target))
    classes = classes_of(usable, options.target)
    test_images = hold_out(
        usable["image"].to_numpy(),
        class_indices(usable, classes, options.target),
        classes,
        options.test_fraction,
        options.seed,
    )
    is_test = frame["image"].is_in(test_images.tolist())
    return frame.filter(~is_test), frame.filter(is_test)


def _refuse_shared(frames: Frames, identity: list[str], cure: str) -> None:
    n_shared = len(frames[1].join(frames[0], on=identity, how="semi"))
    if n_shared:
        raise UsageError(
            f"{n_shared} of {len(frames[1])} test rows are training rows too: the probe would be "
            f"scored on what it learnt. {cure}."
        )


def check_encoded_alike(train: Store, test: Store, permitted: Sequence[Difference] = ()) -> None:
    """Raise `FingerprintError` with the fields in which two stores' features differ.

    Which rows there are may differ (split, limit), which further representations are kept, and
    what is `permitted`: exactly these fields with exactly these values.
    """
    differences = [
        d
        for d in train.spec.differences(test.spec)
        if not _may_differ(d) and d not in tuple(permitted)
    ]
    if differences:
        raise FingerprintError(
            f"the training and the test features were not made alike, so a head trained on one "
            f"says nothing about the other. Fields that differ (train → test):\n"
            f"{describe(differences)}\n"
            f"Extract both splits with the same encoder, weights, view and precision; stores of "
            f"two protocols go together only where --protocol names a recipe that pairs them."
        )


def _may_differ(difference: Difference) -> bool:
    name, ours, theirs = difference
    field, *_ = name.split(".")
    kept_by_one = field == "representations" and (ours is None or theirs is None)
    return field in ("split", "rows", "limit") or kept_by_one


def _files(side: Side) -> pl.DataFrame:
    return side.store.rows[side.rows].select(FILE).unique()


def _side(store: Store, chosen: pl.DataFrame, classes: tuple[str, ...], target: str) -> Side:
    usable = chosen.filter(is_usable(target))
    n_bad = int((~chosen[VALID]).sum())
    return Side(
        store=store,
        rows=usable["row"].to_numpy(),
        targets=class_indices(usable, classes, target),
        images=usable["image"].to_numpy(),
        n_bad=n_bad,
        n_unlabelled=len(chosen) - n_bad - len(usable),
    )
