"""Select rows of a store by condition, and read their labels and classes.

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
VALID = "_image_was_read"  # no column of a dataset begins with an underscore


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
