"""Trees of images and label maps, read as they lie: those that `pa datasets build` makes, and the
official layouts whose masks already have the values of the label set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from pa.data.datasets.listing import list_images, subfolders
from pa.data.datasets.segmentation import labels
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.datasets.text import parse_json, read_text
from pa.data.headers import read_headers
from pa.errors import AnnotationError, FingerprintError, MissingError, UsageError

BUILD = "build.json"
BUILD_FORMAT = 1
# What the masks depend on; build.json says it.
RECIPE = ("dataset", "list", "labels_sha256", "rule")
NAMES_SHOWN = 5

# Images per split that the paper names, or that the release is known to hold.
ADE_IMAGES = {"train": 20_210, "val": 2_000}
VOC_IMAGES = {"train": 4_998, "val": 5_105}
EXPECTED = {
    "ade20k": ADE_IMAGES,
    "ade20k-object": ADE_IMAGES,
    "ade20k-part": ADE_IMAGES,
    "pascal-object": VOC_IMAGES,
    "pascal-part": VOC_IMAGES,
    "lip": {"train": 30_462, "val": 10_000},
}

# Files of ADEChallengeData2016, which the authors' tree of 59 classes does not have.
SCENE_PARSING = ("objectInfo150.txt", "sceneCategories.txt", "devkit")

BUILT_LAYOUT = """  <root>/img/<split>/<name>.jpg     split: train, val
  <root>/ann/<split>/<name>.png     8 bits: 0 = ignored, k = class k
{note}"""
OFFICIAL_ADE = """  <root>/images/{training,validation}/*.jpg
  <root>/annotations/{training,validation}/*.png     the layout of ADEChallengeData2016"""
OFFICIAL_LIP = """  <root>/TrainVal_images/{train_images,val_images}/<id>.jpg
  <root>/TrainVal_parsing_annotations/{train_segmentations,val_segmentations}/<id>.png
(each folder once, or twice inside itself, as in some archives)"""


@dataclass(frozen=True)
class Folders:
    """Where the images and the maps of a split lie, relative to the root."""

    images: str
    masks: str


def layout(kind: str) -> str:
    """What a root of this kind of dataset should hold, for people."""
    note = f"(made by: pa datasets build {kind} --root OFFICIAL --out <root>)"
    built = BUILT_LAYOUT.format(note=note)
    official = {"ade20k": OFFICIAL_ADE, "ade20k-object": OFFICIAL_ADE, "lip": OFFICIAL_LIP}
    return f"{built}\nor\n{official[kind]}" if kind in official else built


def find_splits(root: Path) -> dict[str, Folders]:
    """The splits of a tree and their folders; those with images and masks only."""
    found = {}
    if (root / "img").is_dir() and (root / "ann").is_dir():
        both = set(subfolders(root / "img")) & set(subfolders(root / "ann"))
        found = {name: Folders(f"img/{name}", f"ann/{name}") for name in sorted(both)}
    for split, long in (("train", "training"), ("val", "validation")):
        folders = [Folders(f"images/{name}", f"annotations/{name}") for name in (long, split)]
        folders += lip_folders(split)
        for pair in folders:
            if (root / pair.images).is_dir() and (root / pair.masks).is_dir():
                found.setdefault(split, pair)
    return found


def lip_folders(split: str) -> list[Folders]:
    """Where LIP's archives put a split: each top folder once, or twice inside itself."""
    images, masks = "TrainVal_images", "TrainVal_parsing_annotations"
    return [
        Folders(f"{i}/{split}_images", f"{m}/{split}_segmentations")
        for i in (images, f"{images}/{images}")
        for m in (masks, f"{masks}/{masks}")
    ]


def list_splits(root: Path) -> list[str]:
    return list(find_splits(root))


def read(kind: str, root: Path, split: str) -> pl.DataFrame:
    """The images of a split: path, mask (both relative), width and height of the upright image.

    Width and height are null where the file cannot be read as an image: it is found and counted by
    the extraction. Raises `MissingError` where an image has no mask, `UsageError` for a tree that
    was built for another dataset.
    """
    label_set(kind, root)
    folders = find_splits(root)[split]
    table = list_images(root, folders.images)
    stems = [PurePosixPath(path).relative_to(folders.images) for path in table["path"]]
    maps = [f"{folders.masks}/{stem.with_suffix('.png')}" for stem in stems]
    _require_masks(root, maps)
    _require_own_masks(root, table["path"].to_list(), maps)
    sizes = [header.size or (None, None) for header in read_headers(root, table["path"].to_list())]
    return table.with_columns(
        pl.lit(None, pl.String).alias("label"),
        pl.lit(None, pl.Int64).alias("label_id"),
        pl.Series("mask", maps, pl.String),
        pl.Series("width", [width for width, _ in sizes], pl.Int64),
        pl.Series("height", [height for _, height in sizes], pl.Int64),
    )


def _require_masks(root: Path, maps: list[str]) -> None:
    missing = [path for path in maps if not (root / path).is_file()]
    if missing:
        shown = ", ".join(missing[:NAMES_SHOWN]) + (" …" if len(missing) > NAMES_SHOWN else "")
        raise MissingError(f"{root}: {len(missing)} of {len(maps)} images have no mask: {shown}")


def _require_own_masks(root: Path, paths: list[str], maps: list[str]) -> None:
    """Raise `AnnotationError` where two images, such as a.jpg and a.png, have one mask."""
    image_of: dict[str, str] = {}
    for path, mask in zip(paths, maps, strict=True):
        other = image_of.setdefault(mask, path)
        if other != path:
            raise AnnotationError(
                f"{root}: {other} and {path} have one mask, {mask}. Expected: a mask for each "
                f"image. Move the image away that the mask is not of."
            )


def is_scene_parsing(root: Path) -> bool:
    """Whether a tree is ADEChallengeData2016, with masks of 150 classes, as it was released."""
    return any((root / name).exists() for name in SCENE_PARSING) and not (root / BUILD).exists()


def read_build(root: Path) -> dict[str, Any] | None:
    """What `pa datasets build` wrote about a tree; None where another hand made it."""
    try:
        fields = parse_json(read_text(root / BUILD), root / BUILD)
    except FileNotFoundError:
        return None
    if (
        not isinstance(fields, dict)
        or fields.get("format") != BUILD_FORMAT
        or not all(isinstance(fields.get(name), str) for name in RECIPE)
    ):
        raise AnnotationError(f"{root / BUILD}: not a build report of format {BUILD_FORMAT}.")
    return fields


def label_set(kind: str, root: Path) -> LabelSet:
    """The label set of a tree: the list it was built with, else the default list of its kind.

    Raises `UsageError` where it was built for another dataset, `FingerprintError` where the list
    of that name has changed since.
    """
    made = read_build(root)
    if made is None:
        if kind == "ade20k-object" and is_scene_parsing(root):
            raise UsageError(
                f"{root} is ADEChallengeData2016, whose masks have the 150 classes of scene "
                f"parsing, not the 59 of {kind}. Make them: pa datasets build {kind} --root {root} "
                f"--out DIR."
            )
        return labels.load(kind)
    if made["dataset"] != kind:
        raise UsageError(
            f"{root} was built for {made['dataset']}, not for {kind}: give --dataset "
            f'{made["dataset"]}, or in pa.toml kind = "{made["dataset"]}".'
        )
    found = labels.load(kind, made["list"])
    if found.sha256 != made["labels_sha256"]:
        raise FingerprintError(
            f"{root} was built with another version of the list {made['list']} of {kind}: build it "
            "again into another folder."
        )
    return found
