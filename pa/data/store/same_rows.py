"""Whether two stores of one recipe hold the same rows, and in what their rows differ.

Rows are the same where every column but the row and image number is: file, size, box, label and
what the dataset adds; and where the image files had the same content.
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

NUMBERS = ("row", "image")  # which a row has in one store only


def contains(large: Store, small: Store) -> bool:
    """Whether `small` is a part of `large` by `--limit` or by its split, and by nothing else.

    With a limit its rows are the first of `large`; as a smaller split they are some of them, in the
    same order. Two stores of one split and limit are never parts of each other: between them the
    dataset changed.
    """
    if large.spec.recipe != small.spec.recipe or small.n_rows > large.n_rows:
        return False
    try:
        if large.spec.split != small.spec.split:
            rows = _places(large.rows, small.rows)
        elif large.spec.limit != small.spec.limit and large.rows.head(small.n_rows).equals(
            small.rows
        ):
            rows = np.arange(small.n_rows)
        else:
            return False
        return rows is not None and (not small.is_complete or _have_same_files(small, large, rows))
    except VerificationError:
        return False


def without_parts(stores: Sequence[Store]) -> list[Store]:
    """The stores that are not a part of another one; see `contains`."""
    kept: list[Store] = []
    by_size = sorted(
        stores, key=lambda s: (s.n_rows, s.spec.limit is None, s.spec.limit or 0), reverse=True
    )
    for store in by_size:
        if not any(contains(large, store) for large in kept):
            kept.append(store)
    return sorted(kept, key=lambda s: s.path)


def have_same_images(one: Store, other: Store) -> bool:
    """Whether two stores are of the same files, in the same order, with the same labels."""
    columns = ["image", "path", "file_bytes", "label", "label_id"]
    ours, theirs = (_images(store) for store in (one, other))
    if not ours.select(columns).equals(theirs.select(columns)):
        return False
    return _hashes(one, ours["row"]) == _hashes(other, theirs["row"])


def differences(one: Store, other: Store) -> list[str]:
    """In what the rows of two stores differ: images, their content, file sizes, boxes, labels,
    other columns or the order. All but the first is compared for the images that both have."""
    try:
        ours, theirs = one.rows, other.rows
        found = ["images"] if set(ours["path"]) != set(theirs["path"]) else []
        images = _images(one).join(_images(other), on="path", suffix="_there")
        if _hashes(one, images["row"]) != _hashes(other, images["row_there"]):
            found.append("content of images")
    except VerificationError:
        return ["damaged files"]
    common = ours.join(theirs, on="path", how="semi"), theirs.join(ours, on="path", how="semi")
    region = ["path", *BOX]
    if _differ(*common, ["path", "file_bytes"]):
        found.append("file sizes")
    if _differ(*common, region):
        found.append("boxes")
        region = ["path"]
    if _differ(*common, [*region, "label", "label_id"]):
        found.append("labels")
    further = [name for name in ours.columns if name not in ROW_SCHEMA]
    found += [name for name in further if _differ(*common, [*region, name])]
    return found or ([] if ours.equals(theirs) else ["order of rows"])


def _places(large: pl.DataFrame, small: pl.DataFrame) -> npt.NDArray[np.int64] | None:
    """The row in `large` of each row of `small`; None unless all are there, in the same order."""
    columns = [name for name in small.columns if name not in NUMBERS]
    if large.columns != small.columns:
        return None
    # Equal rows, such as two objects with one box, are distinguished by their count.
    count = pl.int_range(pl.len()).over(columns).alias("count")
    there = large.join(small, on="path", how="semi", maintain_order="left")
    found = small.select(*columns, count).join(
        there.select("row", *columns, count),
        on=[*columns, "count"],
        how="left",
        maintain_order="left",
        nulls_equal=True,
    )["row"]
    rows = found.fill_null(-1).to_numpy()
    return rows if (np.diff(rows, prepend=-1) > 0).all() else None


def _have_same_files(small: Store, large: Store, rows: npt.NDArray[np.int64]) -> bool:
    """Whether the image files behind all rows of `small` and `rows` of `large` were the same."""
    first = _images(small)["row"]
    return _hashes(small, first) == _hashes(large, pl.Series(rows[first.to_numpy()]))


def _images(store: Store) -> pl.DataFrame:
    """The first row of every image."""
    return store.rows.unique("image", keep="first", maintain_order=True)


def _hashes(store: Store, rows: pl.Series) -> list[bytes]:
    """The hash of the image file of each row; of an unfinished store, nothing is known."""
    return image_files.hashes_of(store, rows.to_numpy()) if store.is_complete else []


def _differ(ours: pl.DataFrame, theirs: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Whether some values of the columns are in one table more often than in the other."""
    if not set(columns) <= set(theirs.columns):
        return True
    counted = (table.group_by(columns).len().sort(columns) for table in (ours, theirs))
    return not next(counted).equals(next(counted))
