"""Select the training and test rows of a probe, by one of three rules named in the result.

two stores   a training and a test split with equal encoding
filters      two disjoint sets of rows of one store, each given by an SQL condition
held out     a share of one store's images kept for the test, seeded, stratified by class

Rows of unreadable images and rows without a label are left out and counted. Features are read
later and by row number, so a probe that streams them uses the same selection.

Shapes: N rows of a store, n rows of one side, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.schema import BOX
from pa.data.store.reader import Store
from pa.data.store.spec import Difference, describe
from pa.errors import FingerprintError, MismatchError, UsageError, VerificationError
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
from pa.probe.recipes import permitted_differences

Ints = npt.NDArray[np.int64]

TWO_STORES, FILTERS, HELD_OUT = "two stores", "filters", "held out"
ROWS_SHOWN = 5  # row ids in a message


@dataclass(frozen=True)
class SplitOptions:
    """Options of a selection. Conditions are SQL expressions over the rows table: "x1 <= 112"."""

    target: str = "label"  # the column to predict
    where: str | None = None  # condition on both sides
    train_where: str | None = None
    test_where: str | None = None
    test_fraction: float = 0.2  # share of the held-out images, if no split or condition divides
    seed: int = 0  # of the draw of held-out images

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise UsageError(
                f"the test fraction must be between 0 and 1, not {self.test_fraction}."
            )


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Features of n rows in memory, with the class index, image number and id of each row."""

    features: npt.NDArray[Any]  # (n, D), float16 or float32 as stored
    targets: Ints  # (n,)
    images: Ints  # (n,)
    rows: Ints  # (n,)

    def part(self, at: Ints) -> LabelledRows:
        """Return the rows at some positions (m,)."""
        return LabelledRows(self.features[at], self.targets[at], self.images[at], self.rows[at])


@dataclass(frozen=True, eq=False)
class Side:
    """The rows of one side, training or test, without their features."""

    store: Store
    rows: Ints  # (n,) row ids
    targets: Ints  # (n,) class indices
    images: Ints  # (n,) image numbers
    n_bad: int  # rows left out because their image is unreadable
    n_unlabelled: int  # rows left out because they have no label

    @property
    def n_images(self) -> int:
        return len(np.unique(self.images))

    def read(self, representation: str) -> LabelledRows:
        """Read a representation with one vector per row, or a concatenation: "cls+pooled".

        Half precision is kept: a million class tokens of width 768 take 1.5 GB. Raise
        `UnknownNameError` for one that is not stored, `UsageError` for a map of tokens.
        """
        parts = []
        for name in representation.split("+"):
            shape = self.store.shape(name)
            if len(shape) != 1:
                vectors = [n for n, s in self.store.spec.representations.items() if len(s) == 1]
                raise UsageError(
                    f"a linear probe needs one vector per row; {name!r} is "
                    f"{'×'.join(map(str, shape))}. One vector: "
                    f"{', '.join(vectors) or 'none stored'}."
                )
            parts.append(self.store.read(name, self.rows))  # (n, D)
        features = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return LabelledRows(features, self.targets, self.images, self.rows)

    def part(self, chosen: npt.NDArray[np.bool_]) -> Side:
        """Return the chosen rows (n,) bool of this side; none count as left out."""
        return replace(
            self,
            rows=self.rows[chosen],
            targets=self.targets[chosen],
            images=self.images[chosen],
            n_bad=0,
            n_unlabelled=0,
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows with one list of class names, and the rule that selected them."""

    train: Side
    test: Side
    classes: tuple[str, ...]
    rule: str
    options: SplitOptions

    def to_json(self) -> dict[str, Any]:
        """Return the options that took effect; with the stores they determine the rows."""
        unused = {} if self.rule == HELD_OUT else {"test_fraction": None, "seed": None}
        return {"rule": self.rule, **asdict(self.options), **unused}

    def counts(self) -> dict[str, int]:
        """Count rows, images and rows left out on each side, and images on both sides."""
        counts = {"classes": len(self.classes)}
        for name, side in (("train", self.train), ("test", self.test)):
            counts[f"{name}_rows"] = len(side.rows)
            counts[f"{name}_images"] = side.n_images
            counts[f"{name}_left_out_bad"] = side.n_bad
            counts[f"{name}_left_out_unlabelled"] = side.n_unlabelled
        files = [s.store.rows[s.rows].select(FILE).unique() for s in (self.train, self.test)]
        counts["shared_images"] = len(files[0].join(files[1], on=FILE))
        return counts


@dataclass(frozen=True, eq=False)
class ProbeStores:
    """The stores of a probe, and how their rows are divided."""

    train: Store
    test: Store | None = None  # None: both sides are rows of `train`
    options: SplitOptions = SplitOptions()

    def split(self, protocol: str = "") -> Split:
        """Divide the rows; stores may differ as the protocol of the recipe permits."""
        return split_rows(self.train, self.test, self.options, permitted_differences(protocol))


def split_rows(
    train: Store,
    test: Store | None,
    options: SplitOptions,
    permitted: Sequence[Difference] = (),
) -> Split:
    """Select training and test rows from one store (`test` None, or the same store) or from two.

    `permitted` are the differences between the two stores that the recipe allows: field, value of
    the training store, value of the test store.

    Raises
    ------
    FingerprintError
        The stores were encoded differently.
    UsageError
        A condition or the target column is invalid, a condition selects nothing, the sides share
        rows, a test label has no training row, or a class has too few images to hold some out.
    """
    if test is not None and test.fingerprint != train.fingerprint:
        check_encoded_alike(train, test, permitted)
        remedy = "Give two splits without common images"
        rule, frames = TWO_STORES, _disjoint(train, test, options, [*FILE, *BOX], remedy)
    elif options.train_where is not None or options.test_where is not None:
        rule, frames, test = FILTERS, _filters(train, options), train
    elif test is not None:
        raise UsageError(
            f"training and test split are the same store, {train.title}: the probe would be scored "
            f"on its training rows. Name another --test-split, separate rows with --train-where "
            f"and --test-where, or leave --test-split out to hold images out."
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


# -- The rules. Each returns the rows of both sides, including the rows to leave out. --------------

Frames = tuple[pl.DataFrame, pl.DataFrame]


def _filters(store: Store, options: SplitOptions) -> Frames:
    if options.train_where is None or options.test_where is None:
        set_side, other = ("train", "test") if options.test_where is None else ("test", "train")
        raise UsageError(
            f"--{set_side}-where on one store needs --{other}-where too: which rows are the "
            f"{other} rows?"
        )
    return _disjoint(store, store, options, ["row"], "Make the conditions exclude each other")


def _disjoint(
    train: Store, test: Store, options: SplitOptions, identity: list[str], remedy: str
) -> Frames:
    """Select the rows of both sides; raise `UsageError` for rows with the same `identity`."""
    frames = (
        select_rows(train, options.target, [options.where, options.train_where]),
        select_rows(test, options.target, [options.where, options.test_where]),
    )
    n_shared = len(frames[1].join(frames[0], on=identity, how="semi"))
    if n_shared:
        raise UsageError(
            f"{n_shared} of {len(frames[1])} test rows are training rows too: the probe would be "
            f"scored on its training rows. {remedy}."
        )
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


def check_encoded_alike(train: Store, test: Store, permitted: Sequence[Difference] = ()) -> None:
    """Raise `FingerprintError` with the fields in which two stores' features differ.

    The selection of rows (split, limit) and additional representations may differ, and exactly the
    `permitted` fields with exactly their values.
    """
    differences = [
        d
        for d in train.spec.differences(test.spec)
        if not _may_differ(d) and d not in tuple(permitted)
    ]
    if differences:
        raise FingerprintError(
            f"the training and the test features were encoded differently, so a head trained on "
            f"one is meaningless on the other. Fields that differ (train → test):\n"
            f"{describe(differences)}\n"
            f"Extract both splits with the same encoder, weights, view and precision; stores of "
            f"two protocols are paired only by a recipe, named with --protocol."
        )


def _may_differ(difference: Difference) -> bool:
    name, train_value, test_value = difference
    field, *_ = name.split(".")
    additional = field == "representations" and (train_value is None or test_value is None)
    return field in ("split", "rows", "limit") or additional


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


def check_features(train: LabelledRows, test: LabelledRows) -> None:
    """Raise `MismatchError` for different widths, `VerificationError` for NaN or infinity."""
    widths = train.features.shape[1], test.features.shape[1]
    if widths[0] != widths[1]:
        raise MismatchError(f"training features have width {widths[0]}, test features {widths[1]}.")
    for side, labelled in (("training", train), ("test", test)):
        # Extremes propagate NaN; a mask of all values would take a quarter of the features' size.
        finite = np.isfinite(labelled.features.min(1)) & np.isfinite(labelled.features.max(1))
        if not finite.all():
            raise non_finite(f"{side} features", labelled.rows[~finite])


def non_finite(source: str, rows: Ints) -> VerificationError:
    """Return the error for stored features with NaN or infinity in `rows` (n,)."""
    shown = ", ".join(map(str, np.sort(rows)[:ROWS_SHOWN].tolist()))
    more = ", …" if len(rows) > ROWS_SHOWN else ""
    return VerificationError(
        f"{source}: {len(rows)} rows hold NaN or infinity: rows {shown}{more}. A store never keeps "
        f"such values, so its bytes were damaged: check it with `pa verify`."
    )
