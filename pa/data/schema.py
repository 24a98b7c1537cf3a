"""The tables of datasets, views and stores: images, annotations, regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from pa.errors import UsageError

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
BOX = ("x0", "y0", "x1", "y1")

# The columns of rows.parquet, in order. Columns of a dataset may follow.
ROW_SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(),  # id: position in the store
    "image": pl.Int64(),  # number of the image in its split
    "path": pl.String(),
    **dict.fromkeys(BOX, pl.Float64()),
    "label": pl.String(),
    "label_id": pl.Int64(),  # position among the classes
    "file_bytes": pl.Int64(),  # size of the file; -1 if it does not exist
}

# The columns that determine the pixels of a row, with view and transform: keys of shards.
PIXEL_COLUMNS = ("image", "path", "file_bytes", *BOX)

# `visible`: 0 not annotated, 1 annotated but hidden, 2 visible (the v of COCO; the 1 of CUB is 2).
# `object` identifies the bird or person; `width` and `height` are null if not annotated.
KEYPOINT_SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),
    "object": pl.Int64(),  # id of the bird or person
    "part": pl.String(),  # name of the part
    **dict.fromkeys(("x", "y"), pl.Float64()),  # pixels of the upright image
    **dict.fromkeys(("visible", "width", "height"), pl.Int64()),
}

BOX_SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),
    **dict.fromkeys(BOX, pl.Float64()),
    "label": pl.String(),
    "part": pl.String(),
    "object": pl.String(),  # id of the object, if annotated
    "class": pl.String(),  # label of the whole image
}


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of a split, one row each in `KEYPOINT_SCHEMA`; pixels of the upright image.

    `names` are all parts of the dataset, `considered` those of the paper in the order of their
    label ids (paper, A.2).
    """

    table: pl.DataFrame
    names: tuple[str, ...]
    considered: tuple[str, ...]


@dataclass(frozen=True)
class Boxes:
    """Boxes of a split, one row each in `BOX_SCHEMA`; pixels of the upright image."""

    table: pl.DataFrame

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, sorted: the position of a label is its id."""
        return tuple(self.table["label"].unique().sort())


@dataclass(frozen=True)
class Images:
    """The images of one split: names, root folder, table, and the reader of its annotations."""

    dataset: str
    split: str
    root: Path  # `path` of the table is relative to it
    table: pl.DataFrame
    read_annotations: Callable[[], Keypoints | Boxes] | None = None  # when a view needs them

    def first(self, n: int | None) -> Images:
        """Return the first n images; all of them for None."""
        return self if n is None else replace(self, table=self.table.head(n))

    def annotations(self) -> Keypoints | Boxes:
        """Read the annotated parts. Raise `UsageError` if the dataset has none."""
        if self.read_annotations is None:
            raise UsageError(
                f"dataset {self.dataset} has no parts for view parts. Give a table of boxes: "
                f'--boxes FILE, or in pa.toml: [datasets.{self.dataset}] boxes = "…".'
            )
        return self.read_annotations()


def label_ids(labels: Sequence[str]) -> pl.DataFrame:
    """Return `label` and `label_id`: the id of a label is its position."""
    ids = range(len(labels))
    return pl.DataFrame([labels, ids], {"label": pl.String(), "label_id": pl.Int64()})


def in_schema(rows: pl.DataFrame) -> pl.DataFrame:
    """Number the rows and bring the columns into the order and types of `ROW_SCHEMA`."""
    rows = rows.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    extra = [name for name in rows.columns if name not in ROW_SCHEMA]
    return rows.select([*ROW_SCHEMA, *extra]).cast(ROW_SCHEMA)  # type: ignore[arg-type]


def path_outside(paths: pl.Series) -> str | None:
    """Return the first path of a table outside the root: absolute, or with a component "..".

    Links below the root are followed: a dataset may be a link to another disk.
    """
    # Two fast searches for fixed text leave the slow one nothing to do in nearly every table.
    likely = paths.filter(paths.str.starts_with("/") | paths.str.contains("..", literal=True))
    outside = likely.filter(likely.str.contains(r"^/|(^|/)\.\.(/|$)"))
    return None if outside.is_empty() else str(outside[0])
