"""Read a table of boxes and labels for any tree of images: CSV with a header line, or Parquet.

Required columns: path (relative to the dataset's root, `/` between folders), x0, y0, x1, y1 (pixels
of the upright image) and label. Optional: part (default: the label), object, class.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pa.data.datasets.annotations import CONTROL, FARTHEST, UNPLAIN
from pa.data.schema import BOX, BOX_SCHEMA, Boxes
from pa.errors import AnnotationError, MissingError

REQUIRED = ("path", *BOX, "label")  # columns that a table must have
OPTIONAL = tuple(name for name in BOX_SCHEMA if name not in REQUIRED)
SHOWN = 3  # names in a message
NAME_SHOWN = 60  # characters of a column name: a file of another kind has one long column
MAX_SIDE = 9_000  # pixels: a box is cut at full size, and Pillow warns above 89 million pixels
MAX_LABEL = 200  # characters, so that tables and figures can show a label


AT = " at"  # position of a row in the file: its line in a CSV, its number in Parquet


def read(file: Path, root: Path, paths: pl.Series) -> Boxes:
    """Read the boxes of the images `paths` of a split.

    Raise `MissingError` if the file does not exist or names images that are not under `root`,
    `AnnotationError` for faulty columns, boxes or values.
    """
    table = _load(file)
    _check_columns(file, table)
    table = _checked(file, table)
    others = table["path"].unique(maintain_order=True)  # images of other splits, or missing
    others = others.filter(~others.is_in(paths.implode()))
    if missing := [path for path in others if not (root / path).is_file()]:
        shown = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        raise MissingError(
            f"{file} names {len(missing)} images that are not under {root}: {shown}. Expected: "
            f"paths relative to the root, with / between folders."
        )
    return Boxes(table.filter(pl.col("path").is_in(paths.implode())))


def _load(file: Path) -> pl.DataFrame:
    """Read the table and the positions of its rows; a CSV as text, to show a wrong number."""
    if file.is_dir():
        raise AnnotationError(
            f"{file} is a folder. Expected: the table of boxes itself, a CSV or Parquet file."
        )
    try:
        if file.suffix.lower() == ".parquet":
            return pl.read_parquet(file, glob=False).with_row_index(AT)
        with file.open(encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text, strict=True)  # a broken quote is an error
            # Blank lines are skipped; empty fields are null.
            rows = [(lines.line_num, *(word or None for word in row)) for row in lines if row]
    except FileNotFoundError:
        raise MissingError(f"the table of boxes {file} does not exist.") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{file} cannot be read as a table of boxes: {error}") from None
    if not rows:
        raise AnnotationError(f"{file} is blank. Expected: a header line {','.join(REQUIRED)}.")
    names = [str(name or "") for name in rows[0][1:]]
    for number, *row in rows:
        if len(row) != len(names):
            raise AnnotationError(
                f"{file}, line {number}: {len(row)} fields. Expected: {len(names)}, as in the "
                f"header line. Put a field that contains a comma in quotes."
            )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise AnnotationError(f"{file}: the header line names {_some(repeated)} twice.")
    schema = {AT: pl.Int64(), **dict.fromkeys(names, pl.String())}
    return pl.DataFrame(rows[1:], schema, orient="row")


def _check_columns(file: Path, table: pl.DataFrame) -> None:
    """Raise `AnnotationError` for a missing or unknown column, or one of another type."""
    missing = [name for name in REQUIRED if name not in table.columns]
    unknown = [name for name in table.columns if name not in (AT, *BOX_SCHEMA)]
    if missing or unknown:
        faults = [f"no column {', '.join(missing)}"] if missing else []
        faults += [f"unknown column {_some(unknown)}"] if unknown else []
        raise AnnotationError(
            f"{file}: {'; '.join(faults)}. Expected: {', '.join(REQUIRED)}; optional: "
            f"{', '.join(OPTIONAL)}. Separate the columns of a CSV file by commas."
        )
    texts = (pl.String, pl.Categorical, pl.Enum, pl.Null)  # Null: a column without a value
    for name, kind in table.schema.items():
        if name in BOX:
            fits, expected = kind.is_numeric() or kind in (pl.String, pl.Null), "numbers"
        else:
            fits, expected = kind.is_integer() or kind in texts, "text or whole numbers"
        if not fits:
            raise AnnotationError(
                f"{file}: column {name} is of the type {str(kind)[:NAME_SHOWN]}. Expected: "
                f"{expected}."
            )


def _some(names: list[str]) -> str:
    """Return the first names of a list, each shortened, and the length of the list."""
    short = [name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}…" for name in names]
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(short[:SHOWN]) + more


def _checked(file: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Check every value and cast the columns; missing ones become null, `part` the label."""
    unit = "row" if file.suffix.lower() == ".parquet" else "line"

    def refuse(condition: pl.Expr, what: str) -> None:
        faulty = table.select(condition).to_series()
        if faulty.any():
            at = int(faulty.arg_max() or 0)
            box = ", ".join(str(table[name][at]) for name in BOX)
            path = repr(table["path"][at])[1:-1]  # control characters as \\x1b
            raise AnnotationError(
                f"{file}, {unit} {table[AT][at]}: {what} (path {path}, box {box}; "
                f"{int(faulty.sum())} such in all)."
            )

    col = pl.col
    # A CSV holds text: a wrong number is shown as it was written.
    for name in BOX:
        number = col(name).cast(pl.Float64, strict=False)  # null for anything but a number
        refuse(~number.is_finite().fill_null(False), f"{name} is not a number")
        table = table.with_columns(number)
    lacking = [pl.lit(None, pl.String).alias(n) for n in OPTIONAL if n not in table.columns]
    table = table.with_columns(lacking).select(
        AT, *(col(name).cast(kind) for name, kind in BOX_SCHEMA.items())
    )
    table = table.with_columns(col(name).replace("", None) for name in OPTIONAL)
    table = table.with_columns(pl.coalesce("part", "label").alias("part"))
    if table.is_empty():
        raise AnnotationError(f"{file} holds no box.")
    for condition, what in _faults():
        refuse(condition, what)
    return table.drop(AT)


def _faults() -> Iterator[tuple[pl.Expr, str]]:
    """Yield the conditions under which a row is refused, and what is wrong with it."""
    col = pl.col
    for name in ("path", "label"):
        yield col(name).is_null() | (col(name) == ""), f"{name} is empty"
    for name in ("label", *OPTIONAL):
        yield col(name) != col(name).str.strip_chars(), f"the {name} begins or ends with a space"
        long = col(name).str.len_chars() > MAX_LABEL
        yield long, f"the {name} is longer than {MAX_LABEL} characters"
    for name in ("path", "label", *OPTIONAL):  # line breaks, terminal controls
        yield col(name).str.contains(CONTROL), f"the {name} holds a control character"
    yield pl.max_horizontal(col(*BOX).abs()) > FARTHEST, f"a corner is beyond ±{FARTHEST:,} pixels"
    for low, high in (("x0", "x1"), ("y0", "y1")):
        yield col(high) <= col(low), f"{high} is not greater than {low}"
    side = pl.max_horizontal(col("x1") - col("x0"), col("y1") - col("y0"))
    yield side > MAX_SIDE, f"the box is longer than {MAX_SIDE} pixels"
    yield UNPLAIN, "the path is not a plain path below the root (no leading /, ./ or ../, no //)"
