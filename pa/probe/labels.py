"""Rows of a store by condition, their labels, and the list of classes.

Shapes: n rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.store.reader import Store
from pa.errors import UnknownNameError, UsageError
from pa.evaluate.rows import nothing_to_score
from pa.probe.holdout import some_names

Ints = npt.NDArray[np.int64]

FILE = ["path", "file_bytes"]
VALID = "_image_was_read"


def is_usable(target: str) -> pl.Expr:
    """True for rows of images that could be read, with a label."""
    return pl.col(VALID) & pl.col(target).is_not_null()


def with_readable(rows: pl.DataFrame, valid: npt.NDArray[np.bool_] | bool) -> pl.DataFrame:
    """Add the column that `is_usable` reads: which rows are of images that could be read."""
    return rows.with_columns(pl.lit(valid).alias(VALID))


def select_rows(store: Store, target: str, conditions: Sequence[str | None]) -> pl.DataFrame:
    """The rows that fulfil all conditions, with a column that tells readable images."""
    rows = store.rows
    if target not in rows.columns:
        raise UnknownNameError("target column", target, rows.columns)
    given = [condition for condition in conditions if condition is not None]
    chosen = with_readable(rows, store.valid)
    for condition in given:
        chosen = _filter(chosen, condition, rows.columns)
    if chosen.is_empty():
        raise UsageError(
            f"no row of {store.title} fulfils {' and '.join(map(repr, given)) or 'the selection'} "
            f"({len(rows)} rows)."
        )
    if chosen.filter(is_usable(target)).is_empty():
        raise nothing_to_score(store, chosen, target)
    return chosen


def _filter(rows: pl.DataFrame, condition: str, columns: list[str]) -> pl.DataFrame:
    try:
        return rows.filter(pl.sql_expr(condition))
    except pl.exceptions.PolarsError as error:
        # Polars lists the columns it sees, ours among them; we list those of the table.
        reason = str(error).splitlines()[0].partition("; valid columns")[0].rstrip(".")
        raise UsageError(
            f"cannot select rows by {condition!r}: {reason}. A condition is an SQL expression over "
            f'the columns {", ".join(columns)}; for instance "x1 <= 112".'
        ) from None


def classes_of(train: pl.DataFrame, target: str) -> tuple[str, ...]:
    """Names of the classes in the training rows; labels in the dataset's own order."""
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
    found = test.filter(is_usable(target))[target].cast(pl.String).unique(maintain_order=True)
    unseen = sorted(set(found.to_list()) - set(classes))
    if unseen:
        raise UsageError(
            f"the test rows have a {target} that no training row has: {some_names(unseen)}. "
            f"The head cannot predict it: train on rows that have it, or leave it out with --where."
        )


def class_indices(usable: pl.DataFrame, classes: tuple[str, ...], target: str) -> Ints:
    """The place of each row's label among the classes, (n,), int64."""
    names = usable[target].cast(pl.String)
    return names.replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
