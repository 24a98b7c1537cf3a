"""What a dataset says about the parts in its images: keypoints, or boxes that are ready to cut."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from pa.errors import AnnotationError

HIDDEN, VISIBLE = 1, 2

# No image is larger: a coordinate beyond, in pixels, is a fault of the file.
FARTHEST = 1_000_000
# What no name may hold: it would break a line, or steer a terminal.
CONTROL = r"[\p{Cc}\p{Zl}\p{Zp}]"

# `visible`: 0 not annotated, 1 annotated but hidden, 2 visible (the v of COCO; CUB's 1 is our 2).
# `object` tells the bird or person apart; `width` and `height` where the annotations give them.
KEYPOINT_SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),
    "object": pl.Int64(),
    "part": pl.String(),
    "x": pl.Float64(),
    "y": pl.Float64(),
    "visible": pl.Int64(),
    "width": pl.Int64(),
    "height": pl.Int64(),
}

BOX_SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),
    "x0": pl.Float64(),
    "y0": pl.Float64(),
    "x1": pl.Float64(),
    "y1": pl.Float64(),
    "label": pl.String(),
    "part": pl.String(),
    "object": pl.String(),
    "class": pl.String(),
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
        """The labels, sorted: a label's place is its id."""
        return tuple(self.table["label"].unique().sort())


def require_unique(table: pl.DataFrame, columns: list[str], source: object, what: str) -> None:
    """Raise `AnnotationError` where two rows of an annotation file have the same id."""
    double = table.filter(table.select(columns).is_duplicated()).select(columns).unique()
    if len(double):
        first = double.sort(columns).row(0)
        shown = first[0] if len(first) == 1 else first
        raise AnnotationError(
            f"{source}: {what} {shown} is there more than once ({len(double)} such in all)."
        )


def require_plain_paths(paths: pl.Series, source: object) -> None:
    """Raise `AnnotationError` for a path that is empty, absolute, leaves its folder with .., or
    holds a control character."""
    leaves = paths.str.split("/").list.eval(pl.element().is_in(["", ".", ".."])).list.any()
    odd = paths.filter(leaves | paths.str.contains(CONTROL))
    if len(odd):
        raise AnnotationError(
            f"{source}: {odd[0]!r} is no path of an image below the root ({len(odd)} such in all)."
        )
