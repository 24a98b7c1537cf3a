"""Any tree of images: the first sub-folder is the label."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pa.data.datasets.listing import list_images
from pa.data.schema import label_ids

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
    ids = label_ids(images["label"].drop_nulls().unique().sort().to_list())
    return images.join(ids, on="label", how="left", maintain_order="left")
