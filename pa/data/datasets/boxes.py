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
MAX_SIDE = (
    9_000  # pixels: a box is cut at full size first, and Pillow warns above 89 million pixels
)
MAX_LABEL = 200  # characters, so that tables and figures can show a label


def read(file: Path, root: Path, paths: pl.Series) -> Boxes:
    """Read the boxes of the images `paths` of a split.

    Raise `MissingError` if the file does not exist or names images that are not under `root`,
    `AnnotationError` for faulty columns, boxes or values.
    """
    source, table = _load(file)
    _check_columns(file, table)
    _check_types(file, table)
    table = _typed(source, table)
    _check_values(source, table)
    _check_paths(file, root, table, paths)
    return Boxes(table.filter(pl.col("path").is_in(paths.implode())))


@dataclass(frozen=True)
class _Source:
    """The file of a table, and the position of each row in it: `line` 2, 3 … or `row` 0, 1 …"""

    file: Path
    unit: str
    positions: Sequence[int]

    def raise_at(self, table: pl.DataFrame, faulty: pl.Series, what: str) -> None:
        """Raise `AnnotationError` at the first faulty row."""
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
    missing = [name for name in REQUIRED if name not in table.columns]
    unknown = [name for name in table.columns if name not in BOX_SCHEMA]
    if missing or unknown:
        faults = [f"no column {', '.join(missing)}"] if missing else []
        faults += [f"unknown column {_some(unknown)}"] if unknown else []
        raise AnnotationError(
            f"{file}: {'; '.join(faults)}. Expected: {', '.join(REQUIRED)}; optional: "
            f"{', '.join(OPTIONAL)}. Separate the columns of a CSV file by commas."
        )


def _check_types(file: Path, table: pl.DataFrame) -> None:
    """Raise `AnnotationError` if a column of a Parquet file holds neither text nor numbers."""
    for name, kind in table.schema.items():
        if name in BOX:
            fits, expected = kind.is_numeric() or kind in (pl.String, pl.Null), "numbers"
        else:
            texts = (pl.String, pl.Categorical, pl.Enum, pl.Null)
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
        numbers = table[name].cast(pl.Float64, strict=False)  # null for anything but a number
        source.raise_at(table, ~numbers.is_finite().fill_null(False), f"{name} is not a number")
        table = table.with_columns(numbers)
    table = table.select(pl.col(name).cast(kind) for name, kind in BOX_SCHEMA.items())
    table = table.with_columns(pl.col(name).replace("", None) for name in OPTIONAL)
    return table.with_columns(pl.coalesce("part", "label").alias("part"))


def _check_values(source: _Source, table: pl.DataFrame) -> None:
    if table.is_empty():
        raise AnnotationError(f"{source.file} holds no box.")
    for name in ("path", "label"):
        blank = table[name].is_null() | (table[name] == "")
        source.raise_at(table, blank, f"{name} is empty")
    for name in ("label", *OPTIONAL):
        padded = table[name] != table[name].str.strip_chars()
        source.raise_at(table, padded, f"the {name} begins or ends with a space")
        long = table[name].str.len_chars() > MAX_LABEL
        source.raise_at(table, long, f"the {name} is longer than {MAX_LABEL} characters")
    for name in ("path", "label", *OPTIONAL):
        odd = table[name].str.contains(CONTROL)  # line breaks, terminal controls
        source.raise_at(table, odd, f"the {name} holds a control character")
    far = pl.max_horizontal(pl.col(*BOX).abs()) > FARTHEST
    source.raise_at(
        table, table.select(far).to_series(), f"a corner is beyond ±{FARTHEST:,} pixels"
    )
    source.raise_at(table, table["x1"] <= table["x0"], "x1 is not greater than x0")
    source.raise_at(table, table["y1"] <= table["y0"], "y1 is not greater than y0")
    side = pl.max_horizontal(pl.col("x1") - pl.col("x0"), pl.col("y1") - pl.col("y0"))
    too_large = table.select(side > MAX_SIDE).to_series()
    source.raise_at(table, too_large, f"the box is longer than {MAX_SIDE} pixels")
    pieces = pl.col("path").str.split("/").list.eval(pl.element().is_in(["", ".", ".."])).list.any()
    source.raise_at(
        table,
        table.select(pieces).to_series(),
        "the path is not a plain path below the root (no leading /, ./ or ../, no //)",
    )


def _check_paths(file: Path, root: Path, table: pl.DataFrame, paths: pl.Series) -> None:
    """Raise `MissingError` for boxes of files that do not exist; other splits are allowed."""
    others = table["path"].unique(maintain_order=True)  # images of other splits, or missing
    others = others.filter(~others.is_in(paths.implode()))
    missing = [path for path in others if not (root / path).is_file()]
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        raise MissingError(
            f"{file} names {len(missing)} images that are not under {root}: {shown}. Expected: "
            f"paths relative to the root, with / between folders."
        )
