"""Compare the rows of two stores of one recipe: equal, a subset, or different in named columns.

Rows are equal if every column except row and image number is: file, size, box, label and the
columns of the dataset; and if the image files had the same content.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.schema import BOX, ROW_SCHEMA
from pa.data.store import image_files
from pa.data.store.reader import Store
from pa.errors import VerificationError

NUMBERS = ("row", "image")  # differ between stores that hold the same region


def contains(large: Store, small: Store) -> bool:
    """Return whether `small` is a subset of `large` by `--limit` or by its split, and only by that.

    With a limit its rows are the first of `large`; as a smaller split they are some of them, in the
    same order. Two stores of one split and limit are never subsets of each other: between them the
    dataset changed.
    """
    if large.spec.recipe != small.spec.recipe or small.n_rows > large.n_rows:
        return False
    try:
        if large.spec.split != small.spec.split:
            rows = _rows_in(large.rows, small.rows)
        elif large.spec.limit != small.spec.limit and large.rows.head(small.n_rows).equals(
            small.rows
        ):
            rows = np.arange(small.n_rows)
        else:
            return False
        if rows is None or not small.is_complete:
            return rows is not None
        # Equal rows are not enough: a file may have changed without another name or size.
        first = _first_rows(small)["row"]  # one row per image
        return _hashes(small, first) == _hashes(large, pl.Series(rows[first.to_numpy()]))
    except VerificationError:
        return False


def without_subsets(stores: Sequence[Store]) -> list[Store]:
    """Return the stores that are not a subset of another one; see `contains`."""
    kept: list[Store] = []
    by_size = sorted(
        stores, key=lambda s: (s.n_rows, s.spec.limit is None, s.spec.limit or 0), reverse=True
    )
    # Large stores first: only they contain others.
    for store in by_size:
        if not any(contains(large, store) for large in kept):
            kept.append(store)
    return sorted(kept, key=lambda s: s.path)


def have_same_images(a: Store, b: Store) -> bool:
    """Return whether two stores have the same files, in the same order, with the same labels."""
    columns = ["image", "path", "file_bytes", "label", "label_id"]
    images_a, images_b = _first_rows(a), _first_rows(b)
    if not images_a.select(columns).equals(images_b.select(columns)):
        return False
    return _hashes(a, images_a["row"]) == _hashes(b, images_b["row"])


def differences(a: Store, b: Store) -> list[str]:
    """Name what differs in the rows of two stores: images, their content, file sizes, boxes,
    labels, other columns or the order. All but the first are compared for the common images."""
    try:
        rows_a, rows_b = a.rows, b.rows
        names = ["images"] if set(rows_a["path"]) != set(rows_b["path"]) else []
        images = _first_rows(a).join(_first_rows(b), on="path", suffix="_b")
        if _hashes(a, images["row"]) != _hashes(b, images["row_b"]):
            names.append("content of images")
    except VerificationError:
        return ["damaged files"]
    common = rows_a.join(rows_b, on="path", how="semi"), rows_b.join(rows_a, on="path", how="semi")
    region = ["path", *BOX]
    if _differ(*common, ["path", "file_bytes"]):
        names.append("file sizes")
    if _differ(*common, region):
        names.append("boxes")
        region = ["path"]
    if _differ(*common, [*region, "label", "label_id"]):
        names.append("labels")
    further = [name for name in rows_a.columns if name not in ROW_SCHEMA]
    names += [name for name in further if _differ(*common, [*region, name])]
    return names or ([] if rows_a.equals(rows_b) else ["order of rows"])


def _rows_in(large: pl.DataFrame, small: pl.DataFrame) -> npt.NDArray[np.int64] | None:
    """Return the row of `large` that equals each row of `small`.

    None unless all exist, in the same order.
    """
    columns = [name for name in small.columns if name not in NUMBERS]
    if large.columns != small.columns:
        return None
    # Equal rows, such as two objects with one box, are distinguished by their count.
    count = pl.int_range(pl.len()).over(columns).alias("count")
    candidates = large.join(small, on="path", how="semi", maintain_order="left")
    matches = small.select(*columns, count).join(
        candidates.select("row", *columns, count),
        on=[*columns, "count"],
        how="left",
        maintain_order="left",
        nulls_equal=True,
    )
    rows = matches["row"].fill_null(-1).to_numpy()  # (rows of small,)
    return rows if (np.diff(rows, prepend=-1) > 0).all() else None


def _first_rows(store: Store) -> pl.DataFrame:
    """Return the first row of every image."""
    return store.rows.unique("image", keep="first", maintain_order=True)


def _hashes(store: Store, rows: pl.Series) -> list[bytes]:
    """Return the hash of the image file of each row; none for an unfinished store."""
    return image_files.hashes_of(store, rows.to_numpy()) if store.is_complete else []


def _differ(a: pl.DataFrame, b: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Return whether some values of the columns occur in one table more often than in the other."""
    if not set(columns) <= set(b.columns):
        return True
    counts = (table.group_by(columns).len().sort(columns) for table in (a, b))
    return not next(counts).equals(next(counts))
