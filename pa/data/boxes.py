"""A table of boxes and labels for any tree of images: CSV with a header line, or Parquet.

Required columns: path (relative to the dataset's root, `/` between folders), x0, y0, x1, y1 (pixels
of the upright image) and label. Optional: part (default: the label), object, class.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pa.data.annotations import BOX_SCHEMA, Boxes
from pa.data.view import BOX
from pa.errors import AnnotationError, MissingError

REQUIRED = ("path", *BOX, "label")
OPTIONAL = tuple(name for name in BOX_SCHEMA if name not in REQUIRED)
SHOWN = 3


# Cutting a box makes a picture of its size first.
MAX_SIDE = 10_000


def read(file: Path, root: Path, paths: pl.Series) -> Boxes:
    """The boxes of the images `paths` of a split.

    Raises `MissingError` where the file is not there or names images that are not under `root`,
    `AnnotationError` for columns, boxes or values that are not as above.
    """
    table = _load(file)
    _check_columns(file, table)
    table = _typed(file, table)
    _check_values(file, table)
    _check_paths(file, root, table, paths)
    return Boxes(table.filter(pl.col("path").is_in(paths.implode())))


def _load(file: Path) -> pl.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            return pl.read_parquet(file)
        # Everything as text first, so that a wrong number can be shown as it stands.
        return pl.read_csv(file, infer_schema=False, glob=False)
    except FileNotFoundError:
        raise MissingError(f"the table of boxes {file} is not there.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AnnotationError(f"{file} cannot be read as a table of boxes: {error}") from None


def _check_columns(file: Path, table: pl.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in table.columns]
    unknown = [name for name in table.columns if name not in BOX_SCHEMA]
    if missing or unknown:
        faults = [f"no column {', '.join(missing)}"] if missing else []
        faults += [f"unknown column {', '.join(unknown)}"] if unknown else []
        raise AnnotationError(
            f"{file}: {'; '.join(faults)}. Expected: {', '.join(REQUIRED)}, and if you like "
            f"{', '.join(OPTIONAL)}."
        )


def _typed(file: Path, table: pl.DataFrame) -> pl.DataFrame:
    """All columns in their types; those that were not given are null, `part` is the label."""
    lacking = [pl.lit(None, pl.String).alias(n) for n in OPTIONAL if n not in table.columns]
    table = table.with_columns(lacking)
    for name in BOX:
        numbers = table[name].cast(pl.Float64, strict=False)
        _raise_at(file, table, ~numbers.is_finite().fill_null(False), f"{name} is no number")
        table = table.with_columns(numbers)
    table = table.select(pl.col(name).cast(kind) for name, kind in BOX_SCHEMA.items())
    return table.with_columns(pl.coalesce("part", "label").alias("part"))


def _check_values(file: Path, table: pl.DataFrame) -> None:
    if table.is_empty():
        raise AnnotationError(f"{file} holds no box.")
    for name in ("path", "label"):
        blank = table[name].is_null() | (table[name] == "")
        _raise_at(file, table, blank, f"{name} is empty")
    _raise_at(file, table, table["x1"] <= table["x0"], "x1 is not greater than x0")
    _raise_at(file, table, table["y1"] <= table["y0"], "y1 is not greater than y0")
    side = pl.max_horizontal(pl.col("x1") - pl.col("x0"), pl.col("y1") - pl.col("y0"))
    too_large = table.select(side > MAX_SIDE).to_series()
    _raise_at(file, table, too_large, f"the box is longer than {MAX_SIDE} pixels")
    pieces = pl.col("path").str.split("/").list.eval(pl.element().is_in(["", ".", ".."])).list.any()
    _raise_at(file, table, table.select(pieces).to_series(), "the path is not relative to the root")


def _check_paths(file: Path, root: Path, table: pl.DataFrame, paths: pl.Series) -> None:
    """Boxes of other splits are no fault; boxes of files that are nowhere are."""
    others = table["path"].unique(maintain_order=True)
    others = others.filter(~others.is_in(paths.implode()))
    gone = [path for path in others if not (root / path).is_file()]
    if gone:
        shown = ", ".join(gone[:SHOWN]) + (", …" if len(gone) > SHOWN else "")
        raise MissingError(
            f"{file} names {len(gone)} images that are not under {root}: {shown}. Expected: "
            f"paths relative to the root, with / between folders."
        )


def _raise_at(file: Path, table: pl.DataFrame, faulty: pl.Series, what: str) -> None:
    """Raise `AnnotationError` at the first faulty row."""
    if faulty.any():
        at = int(faulty.arg_max() or 0)
        # The header is line 1 of a CSV file; a Parquet file has rows counted from 0.
        place = f"row {at}" if file.suffix.lower() == ".parquet" else f"line {at + 2}"
        box = ", ".join(str(table[name][at]) for name in BOX)
        raise AnnotationError(
            f"{file}, {place}: {what} (path {table['path'][at]}, box {box}; {int(faulty.sum())} "
            f"such in all)."
        )
