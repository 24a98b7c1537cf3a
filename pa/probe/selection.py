"""Select the training and test rows of a probe, by one of three rules named in the result.

two stores   a training and a test split with equal encoding
filters      two disjoint sets of rows of one store, each given by an SQL condition
held out     a share of one store's images kept for the test, seeded, stratified by class

Rows of unreadable images and rows without a label are skipped and counted. Features are read
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
from pa.errors import (
    FingerprintError,
    MismatchError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from pa.evaluate.rows import nothing_to_score
from pa.probe.holdout import hold_out, some_names
from pa.probe.recipes import permitted_differences

Ints = npt.NDArray[np.int64]

FILE = ["path", "file_bytes"]
VALID = "_image_was_read"  # no column of a dataset begins with an underscore

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
    n_bad: int  # rows skipped because their image is unreadable
    n_unlabelled: int  # rows skipped because they have no label

    @classmethod
    def of(cls, store: Store, rows: pl.DataFrame, classes: tuple[str, ...], target: str) -> Side:
        """Return the usable rows of a selection, and count the others."""
        usable = rows.filter(is_usable(target))
        targets, n_bad = class_indices(usable, classes, target), int((~rows[VALID]).sum())
        images, n_unlabelled = usable["image"].to_numpy(), len(rows) - n_bad - len(usable)
        return cls(store, usable["row"].to_numpy(), targets, images, n_bad, n_unlabelled)

    @property
    def n_images(self) -> int:
        return len(np.unique(self.images))

    def read(self, representation: str) -> LabelledRows:
        """Read a representation with one vector per row, or a concatenation: "cls+pooled".

        Half precision is kept: a million class tokens of width 768 take 1.5 GB. Raise
        `UnknownNameError` for one that is not stored, `UsageError` for a map of tokens.
        """
        # Every part is checked before it is read: a map of tokens may not fit into memory.
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
        """Return the chosen rows (n,) bool of this side, with no row counted as skipped."""
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
        """Count rows, images and skipped rows on each side, and images on both sides."""
        counts = {"classes": len(self.classes)}
        for name, side in (("train", self.train), ("test", self.test)):
            counts[f"{name}_rows"] = len(side.rows)
            counts[f"{name}_images"] = side.n_images
            counts[f"{name}_left_out_bad"] = side.n_bad
            counts[f"{name}_left_out_unlabelled"] = side.n_unlabelled
        # Image numbers are those of a store; paths and sizes identify an image in both.
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
    target = options.target
    frames: tuple[pl.DataFrame, pl.DataFrame]  # training and test rows, with those to leave out
    if test is not None and test.fingerprint != train.fingerprint:
        check_encoded_alike(train, test, permitted)
        remedy = "Give two splits without common images"
        rule, frames = TWO_STORES, _disjoint(train, test, options, [*FILE, *BOX], remedy)
    elif options.train_where is not None or options.test_where is not None:
        if options.train_where is None or options.test_where is None:
            set_side, other = ("train", "test") if options.test_where is None else ("test", "train")
            raise UsageError(
                f"--{set_side}-where on one store needs --{other}-where too: which rows are the "
                f"{other} rows?"
            )
        remedy = "Make the conditions exclude each other"
        rule, frames, test = FILTERS, _disjoint(train, train, options, ["row"], remedy), train
    elif test is not None:
        raise UsageError(
            f"training and test split are the same store, {train.title}: the probe would be scored "
            f"on its training rows. Name another --test-split, separate rows with --train-where "
            f"and --test-where, or leave --test-split out to hold images out."
        )
    else:
        frame = select_rows(train, target, [options.where])
        usable = frame.filter(is_usable(target))
        names = classes_of(usable, target)
        images, labels = usable["image"].to_numpy(), class_indices(usable, names, target)
        held_out = hold_out(images, labels, names, options.test_fraction, options.seed)
        is_test = frame["image"].is_in(held_out.tolist())
        rule, frames, test = HELD_OUT, (frame.filter(~is_test), frame.filter(is_test)), train
    classes = classes_of(frames[0], target)
    check_seen(frames[1], classes, target)
    sides = [
        Side.of(store, frame, classes, target)
        for store, frame in zip((train, test), frames, strict=True)
    ]
    return Split(sides[0], sides[1], classes, rule, options)


def _disjoint(
    train: Store, test: Store, options: SplitOptions, identity: list[str], remedy: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
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


def check_encoded_alike(train: Store, test: Store, permitted: Sequence[Difference] = ()) -> None:
    """Raise `FingerprintError` with the fields in which two stores' features differ.

    The selection of rows (split, limit) and additional representations may differ, and exactly the
    `permitted` fields with exactly their values.
    """
    differences = []
    for difference in train.spec.differences(test.spec):
        name, train_value, test_value = difference
        field = name.partition(".")[0]
        is_additional = field == "representations" and None in (train_value, test_value)
        may_differ = field in ("split", "rows", "limit") or is_additional
        if not may_differ and difference not in permitted:
            differences.append(difference)
    if differences:
        raise FingerprintError(
            f"the training and the test features were encoded differently, so a head trained on "
            f"one is meaningless on the other. Fields that differ (train → test):\n"
            f"{describe(differences)}\n"
            f"Extract both splits with the same encoder, weights, view and precision; stores of "
            f"two protocols are paired only by a recipe, named with --protocol."
        )


# -- labels ----------------------------------------------------------------------------------------


def is_usable(target: str) -> pl.Expr:
    """Return an expression: true for rows of readable images, with a label."""
    return pl.col(VALID) & pl.col(target).is_not_null()


def with_readable(rows: pl.DataFrame, valid: npt.NDArray[np.bool_] | bool) -> pl.DataFrame:
    """Add the column that `is_usable` reads: whether a row's image is readable, (n,) bool."""
    return rows.with_columns(pl.lit(valid).alias(VALID))


def select_rows(store: Store, target: str, conditions: Sequence[str | None]) -> pl.DataFrame:
    """Return the rows that fulfil all conditions, with a column that marks readable images."""
    rows = store.rows
    if target not in rows.columns:
        raise UnknownNameError("target column", target, rows.columns)
    set_conditions = [condition for condition in conditions if condition is not None]
    selected = with_readable(rows, store.valid)
    for condition in set_conditions:
        try:
            selected = selected.filter(pl.sql_expr(condition))
        except pl.exceptions.PolarsError as error:
            # Polars also lists the internal column VALID; this message lists the table's columns.
            reason = str(error).splitlines()[0].partition("; valid columns")[0].rstrip(".")
            raise UsageError(
                f"cannot select rows by {condition!r}: {reason}. A condition is an SQL expression "
                f'over the columns {", ".join(rows.columns)}; for instance "x1 <= 112".'
            ) from None
    if selected.is_empty():
        shown = " and ".join(map(repr, set_conditions)) or "the selection"
        raise UsageError(f"no row of {store.title} fulfils {shown} ({len(rows)} rows).")
    if selected.filter(is_usable(target)).is_empty():
        raise nothing_to_score(store, selected, target)
    return selected


def classes_of(train: pl.DataFrame, target: str) -> tuple[str, ...]:
    """Return the class names of the training rows; labels in the order of the dataset."""
    usable = train.filter(is_usable(target))
    order = ["label_id", "label"] if target == "label" else [target]
    names = usable.select(order).unique().sort(order)[target].cast(pl.String)
    classes = tuple(names.unique(maintain_order=True).to_list())
    if len(classes) < 2:
        raise UsageError(
            f"all training rows have the {target} {classes[0]!r}: a probe needs two classes "
            f"or more."
        )
    return classes


def check_seen(test: pl.DataFrame, classes: tuple[str, ...], target: str) -> None:
    """Raise `UsageError` for a label of the test rows that no training row has."""
    labels = test.filter(is_usable(target))[target].cast(pl.String).unique()
    unseen = sorted(set(labels.to_list()) - set(classes))
    if unseen:
        raise UsageError(
            f"the test rows have a {target} that no training row has: {some_names(unseen)}. "
            f"The head cannot predict it: train on rows that have it, or leave it out with --where."
        )


def class_indices(usable: pl.DataFrame, classes: tuple[str, ...], target: str) -> Ints:
    """Return the index of each row's label in `classes`, (n,), int64."""
    names = usable[target].cast(pl.String)
    return names.replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()


# -- features --------------------------------------------------------------------------------------


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
