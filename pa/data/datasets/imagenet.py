"""ImageNet-1k in the official layout of class folders."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from pa.data.datasets.listing import list_images, subfolders
from pa.data.schema import label_ids

LAYOUT = """  <root>/<split>/<wnid>/*.JPEG     split: train, val; wnid: n01440764 …
(the validation images sorted into class folders, as torchvision and timm expect them;
split val-25003, by name only: the validation images of the paper's authors)"""

# The gallery of the released patch search: the validation images with numbers below 25,000, and
# a list of eight, of which these four have larger ones (retrieval-classification/moco/loader.py).
SUBSET = "val-25003"
WNID = re.compile(r"n\d+")  # WordNet id of a noun
NUMBER = pl.col("path").str.extract(r"ILSVRC2012_val_(\d{8})\.").cast(pl.Int64)  # or null
IN_SUBSET = NUMBER.is_between(1, 24_999) | NUMBER.is_in([25793, 39553, 41979, 44160])


def list_splits(root: Path) -> list[str]:
    """List the folders that contain a folder named by a wnid."""
    return [name for name in subfolders(root) if any(map(WNID.fullmatch, subfolders(root / name)))]


def list_subsets(root: Path) -> list[str]:
    return [SUBSET] if "val" in list_splits(root) else []


def read(root: Path, split: str) -> pl.DataFrame:
    """List the images of a split; label = wnid, label_id = its position among the sorted wnids.

    The ids are those of the usual 1000 classes only if the folders of all classes exist.
    """
    if split == SUBSET:
        return read(root, "val").filter(IN_SUBSET)
    images = list_images(root, split).with_columns(
        pl.col("path").str.split("/").list.get(1, null_on_oob=True).alias("label")
    )
    ids = label_ids(subfolders(root / split))  # sorted; folders without images keep their ids
    return images.join(ids, on="label", how="inner", maintain_order="left")


def class_names() -> dict[str, str]:
    """Return wnid → name of the 1000 classes, in the order of their ids; empty without timm."""
    names = synset_names()
    return {wnid: names.get(wnid, wnid) for wnid in _timm_lines("imagenet_synsets.txt")}


def readable_label(label: str) -> str:
    """Return the class name of a label that is a wnid; other labels unchanged."""
    return synset_names().get(label, label) if WNID.fullmatch(label) else label


@cache
def synset_names() -> dict[str, str]:
    """Return wnid → first name of every synset of ImageNet, from the file that timm ships."""
    lines = _timm_lines("imagenet_synset_to_lemma.txt")
    synsets = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return {wnid: names.split(",")[0] for wnid, names in synsets.items()}


def _timm_lines(file: str) -> list[str]:
    timm = find_spec("timm")  # locates timm without importing it
    if timm is None or timm.origin is None:
        return []
    try:
        text = (Path(timm.origin).parent / "data" / "_info" / file).read_text(encoding="utf-8")
    except OSError:
        return []
    return text.splitlines()


def remarks(table: pl.DataFrame) -> list[str]:
    """Count the folders that are classes of ImageNet-1k, and name the first and the last."""
    names = class_names()
    wnids = table["label"].unique().sort().to_list()
    known = [wnid for wnid in wnids if wnid in names]
    others = [wnid for wnid in wnids if wnid not in names]
    lines = []
    if known:
        first, last = (f"{wnid} {names[wnid]}" for wnid in (known[0], known[-1]))
        lines.append(f"{len(known)} of the 1000 classes of ImageNet-1k: {first} … {last}")
    if others and names:
        lines.append(f"{len(others)} folders are none of them, such as {others[0]}")
    return lines
