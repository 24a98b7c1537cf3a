"""Any tree of images: the first sub-folder is the label."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pa.data.datasets.listing import list_images

LAYOUT = """  <root>/**/*.jpg (png, webp, tif, …)     the first sub-folder, if any, is the label"""

WHOLE = "all"  # the only split


def list_splits(root: Path) -> list[str]:
    return [WHOLE]


def read(root: Path, split: str) -> pl.DataFrame:
    """List all images under root; label = first sub-folder, or none for images in the root."""
    parts = pl.col("path").str.split("/")  # folders and file name
    images = list_images(root).with_columns(
        pl.when(parts.list.len() > 1).then(parts.list.first()).alias("label")
    )
    labels = images["label"].drop_nulls().unique().sort()
    ids = pl.DataFrame(
        {"label": labels, "label_id": range(len(labels))},
        schema_overrides={"label": pl.String, "label_id": pl.Int64},
    )
    return images.join(ids, on="label", how="left", maintain_order="left")
