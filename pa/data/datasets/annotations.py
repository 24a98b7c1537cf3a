"""What a dataset says about the parts in its images: keypoints, or boxes that are ready to cut."""

from __future__ import annotations

import polars as pl

from pa.errors import AnnotationError

HIDDEN, VISIBLE = 1, 2

# No image is larger: a coordinate beyond, in pixels, is a fault of the file.
FARTHEST = 1_000_000
# What no name may hold: it would break a line, or steer a terminal.
CONTROL = r"[\p{Cc}\p{Zl}\p{Zp}]"


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
