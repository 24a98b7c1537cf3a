"""ImageNet-1k in the official layout of class folders."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pa.data.datasets.listing import list_images, subfolders

LAYOUT = """  <root>/<split>/<wnid>/*.JPEG     split: train, val; wnid: n01440764 …
(the validation images sorted into class folders, as torchvision and timm expect them)"""


def list_splits(root: Path) -> list[str]:
    return [name for name in subfolders(root) if subfolders(root / name)]


def read(root: Path, split: str) -> pl.DataFrame:
    """Images of a split; the label is the wnid, the label id its place among the sorted wnids.

    The ids are those of the usual 1000 classes only where the folders of all classes are there.
    """
    images = list_images(root, split).with_columns(
        pl.col("path").str.split("/").list.get(1, null_on_oob=True).alias("label")
    )
    wnids = sorted(set(subfolders(root / split)))
    ids = pl.DataFrame(
        {"label": wnids, "label_id": range(len(wnids))}, schema_overrides={"label_id": pl.Int64}
    )
    return images.join(ids, on="label", how="inner", maintain_order="left")
