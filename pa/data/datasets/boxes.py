"""Read a table of boxes and labels for any tree of images: CSV with a header line, or Parquet.

Required columns: path (relative to the dataset's root, `/` between folders), x0, y0, x1, y1 (pixels
of the upright image) and label. Optional: part (default: the label), object, class.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pa.data.datasets.annotations import CONTROL, FARTHEST
from pa.data.schema import BOX, BOX_SCHEMA, Boxes
from pa.errors import AnnotationError, MissingError

REQUIRED = ("path", *BOX, "label")  # columns that a table must have
OPTIONAL = tuple(name for name in BOX_SCHEMA if name not in REQUIRED)
SHOWN = 3  # names in a message
NAME_SHOWN = 60  # characters of a column name: a file of another kind has one long column
MAX_SIDE = 9_000  # pixels: a box is cut at full size, and Pillow warns above 89 million pixels
MAX_LABEL = 200  # characters, so that tables and figures can show a label


def read(file: Path, root: Path, paths: pl.Series) -> Boxes:
    """Read the boxes of the images `paths` of a split.

    Raise `MissingError` if the file does not exist or names images that are not under `root`,
    `AnnotationError` for faulty columns, boxes or values.
    """
    source, table = _load(file)
    _check_columns(file, table)
    table = _typed(source, table)
    _check_values(source, table)
    others = table["path"].unique(maintain_order=True)  # images of other splits, or missing
    others = others.filter(~others.is_in(paths.implode()))
    if missing := [path for path in others if not (root / path).is_file()]:
        shown = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        raise MissingError(
            f"{file} names {len(missing)} images that are not under {root}: {shown}. Expected: "
            f"paths relative to the root, with / between folders."
        )
    return Boxes(table.filter(pl.col("path").is_in(paths.implode())))


@dataclass(frozen=True)
class _Source:
    """The file of a table, and the position of each row in it: `line` 2, 3 … or `row` 0, 1 …"""

    file: Path
    unit: str
    positions: Sequence[int]

    def raise_at(self, table: pl.DataFrame, condition: pl.Expr, what: str) -> None:
        """Raise `AnnotationError` at the first row that meets a condition."""
        faulty = table.select(condition).to_series()
        if faulty.any():
            at = int(faulty.arg_max() or 0)
            box = ", ".join(str(table[name][at]) for name in BOX)
            path = repr(table["path"][at])[1:-1]  # control characters as \\x1b
            raise AnnotationError(
                f"{self.file}, {self.unit} {self.positions[at]}: {what} (path {path}, "
                f"box {box}; {int(faulty.sum())} such in all)."
            )


def _load(file: Path) -> tuple[_Source, pl.DataFrame]:
    if file.is_dir():
        raise AnnotationError(
            f"{file} is a folder. Expected: the table of boxes itself, a CSV or Parquet file."
        )
    try:
        if file.suffix.lower() == ".parquet":
            table = pl.read_parquet(file, glob=False)
            return _Source(file, "row", range(len(table))), table
        return _load_csv(file)
    except FileNotFoundError:
        raise MissingError(f"the table of boxes {file} does not exist.") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{file} cannot be read as a table of boxes: {error}") from None


def _load_csv(file: Path) -> tuple[_Source, pl.DataFrame]:
    """Read all columns as text, so that a message can show a wrong number; empty is null."""
    positions, rows = [], []  # line numbers, and the fields of each line
    with file.open(encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)  # a broken quote is an error
        names = next(filter(None, lines), None)  # blank lines are skipped
        if names is None:
            raise AnnotationError(f"{file} is blank. Expected: a header line {','.join(REQUIRED)}.")
        for row in filter(None, lines):
            if len(row) != len(names):
                raise AnnotationError(
                    f"{file}, line {lines.line_num}: {len(row)} fields. Expected: {len(names)}, as "
                    f"in the header line. Put a field that contains a comma in quotes."
                )
            positions.append(lines.line_num)
            rows.append([field or None for field in row])
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise AnnotationError(f"{file}: the header line names {_some(repeated)} twice.")
    schema = dict.fromkeys(names, pl.String)
    return _Source(file, "line", positions), pl.DataFrame(rows, schema, orient="row")


def _check_columns(file: Path, table: pl.DataFrame) -> None:
    """Raise `AnnotationError` for a missing or unknown column, or one of another type."""
    missing = [name for name in REQUIRED if name not in table.columns]
    unknown = [name for name in table.columns if name not in BOX_SCHEMA]
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


def _typed(source: _Source, table: pl.DataFrame) -> pl.DataFrame:
    """Cast all columns; missing ones become null, a missing `part` becomes the label."""
    lacking = [pl.lit(None, pl.String).alias(n) for n in OPTIONAL if n not in table.columns]
    table = table.with_columns(lacking)
    for name in BOX:
        number = pl.col(name).cast(pl.Float64, strict=False)  # null for anything but a number
        source.raise_at(table, ~number.is_finite().fill_null(False), f"{name} is not a number")
        table = table.with_columns(number)
    table = table.select(pl.col(name).cast(kind) for name, kind in BOX_SCHEMA.items())
    table = table.with_columns(pl.col(name).replace("", None) for name in OPTIONAL)
    return table.with_columns(pl.coalesce("part", "label").alias("part"))


def _check_values(source: _Source, table: pl.DataFrame) -> None:
    if table.is_empty():
        raise AnnotationError(f"{source.file} holds no box.")
    col = pl.col
    for name in ("path", "label"):
        source.raise_at(table, col(name).is_null() | (col(name) == ""), f"{name} is empty")
    for name in ("label", *OPTIONAL):
        padded = col(name) != col(name).str.strip_chars()
        source.raise_at(table, padded, f"the {name} begins or ends with a space")
        long = col(name).str.len_chars() > MAX_LABEL
        source.raise_at(table, long, f"the {name} is longer than {MAX_LABEL} characters")
    for name in ("path", "label", *OPTIONAL):
        odd = col(name).str.contains(CONTROL)  # line breaks, terminal controls
        source.raise_at(table, odd, f"the {name} holds a control character")
    far = pl.max_horizontal(col(*BOX).abs()) > FARTHEST
    source.raise_at(table, far, f"a corner is beyond ±{FARTHEST:,} pixels")
    for low, high in (("x0", "x1"), ("y0", "y1")):
        source.raise_at(table, col(high) <= col(low), f"{high} is not greater than {low}")
    side = pl.max_horizontal(col("x1") - col("x0"), col("y1") - col("y0"))
    source.raise_at(table, side > MAX_SIDE, f"the box is longer than {MAX_SIDE} pixels")
    pieces = col("path").str.split("/").list.eval(pl.element().is_in(["", ".", ".."])).list.any()
    what = "the path is not a plain path below the root (no leading /, ./ or ../, no //)"
    source.raise_at(table, pieces, what)
