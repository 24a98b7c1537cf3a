"""Folder trees of images and label maps: those of `pa datasets build`, and the official layouts
whose masks already have the values of the label set.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from pa.data.datasets.annotations import parse_json, read_text
from pa.data.datasets.listing import list_images, subfolders
from pa.data.datasets.segmentation import labels
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.images import size_columns
from pa.errors import AnnotationError, FingerprintError, MissingError, UsageError

BUILD = "build.json"
BUILD_FORMAT = 1
RECIPE = ("dataset", "list", "labels_sha256", "rule")  # what the masks of a tree depend on
MAX_NAMES = 5  # file names listed in a message

# Files of ADEChallengeData2016, which the authors' tree of 59 classes does not have.
SCENE_PARSING = ("objectInfo150.txt", "sceneCategories.txt", "devkit")

BUILT_LAYOUT = """  <root>/img/<split>/<name>.jpg     split: train, val
  <root>/ann/<split>/<name>.png     8 bits: 0 = ignored, k = class k
(made by: pa datasets build {kind} --root OFFICIAL --out <root>)"""

# Folders of images and masks of the official layouts that can be read without a build, in which
# {split} is train or val, and {long} training or validation.
OFFICIAL = (
    ("images/{long}", "annotations/{long}"),  # ADE20K
    ("images/{split}", "annotations/{split}"),
    *(
        (f"{images}/{{split}}_images", f"{masks}/{{split}}_segmentations")  # LIP
        for images in ("TrainVal_images", "TrainVal_images/TrainVal_images")
        for masks in (
            "TrainVal_parsing_annotations",
            "TrainVal_parsing_annotations/TrainVal_parsing_annotations",
        )
    ),
)


@dataclass(frozen=True)
class Folders:
    """Folders of the images and the masks of a split, relative to the root."""

    images: str
    masks: str


def layout(kind: str, readable: str) -> str:
    """Describe the tree of a kind of dataset; `readable` is its official layout, or empty."""
    built = BUILT_LAYOUT.format(kind=kind)
    return f"{built}\nor\n{readable}" if readable else built


def find_splits(root: Path) -> dict[str, Folders]:
    """Return the splits of a tree that have both images and masks, with their folders."""
    splits = {}
    if (root / "img").is_dir() and (root / "ann").is_dir():
        both = set(subfolders(root / "img")) & set(subfolders(root / "ann"))
        splits = {name: Folders(f"img/{name}", f"ann/{name}") for name in sorted(both)}
    for split, long in (("train", "training"), ("val", "validation")):
        for pair in OFFICIAL:
            folders = Folders(*(pattern.format(split=split, long=long) for pattern in pair))
            if (root / folders.images).is_dir() and (root / folders.masks).is_dir():
                splits.setdefault(split, folders)
    return splits


def list_splits(root: Path) -> list[str]:
    return list(find_splits(root))


def read(kind: str, root: Path, split: str) -> pl.DataFrame:
    """Return the images of a split: path, mask (both relative), width, height of the upright image.

    Width and height are null for a file that cannot be read as an image: extraction reports it.
    Raise `MissingError` for an image without mask, `AnnotationError` for two images with one mask,
    `UsageError` for a tree built for another dataset.
    """
    # Raises for a tree of another dataset or list.
    label_set(kind, root)
    folders = find_splits(root)[split]
    table = list_images(root, folders.images)
    paths = table["path"].to_list()
    stems = [PurePosixPath(path).relative_to(folders.images) for path in paths]
    maps = [f"{folders.masks}/{stem.with_suffix('.png')}" for stem in stems]
    missing = [path for path in maps if not (root / path).is_file()]
    if missing:
        shown = ", ".join(missing[:MAX_NAMES]) + (" …" if len(missing) > MAX_NAMES else "")
        raise MissingError(f"{root}: {len(missing)} of {len(maps)} images have no mask: {shown}")
    mask, n = Counter(maps).most_common(1)[0] if maps else ("", 0)
    if n > 1:  # such as a.jpg and a.png
        first, second, *_ = (path for path, other in zip(paths, maps, strict=True) if other == mask)
        raise AnnotationError(
            f"{root}: {first} and {second} have one mask, {mask}. Expected: a mask for each image. "
            f"Remove the image that the mask does not belong to."
        )
    return table.with_columns(
        pl.lit(None, pl.String).alias("label"),
        pl.lit(None, pl.Int64).alias("label_id"),
        pl.Series("mask", maps, pl.String),
        *size_columns(root, paths),
    )


def read_build(root: Path) -> dict[str, Any] | None:
    """Read the build record of a tree; None for a tree that was not built by pa."""
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
    """Return the label set of a tree.

    Raise `UsageError` for a tree built for another dataset, `FingerprintError` for one built with
    another version of the list.
    """
    build = read_build(root)
    expected = labels.load(kind)
    if build is None:
        # The masks of the original scene-parsing release have 150 classes.
        if kind == "ade20k-object" and any((root / name).exists() for name in SCENE_PARSING):
            raise UsageError(
                f"{root} is ADEChallengeData2016, whose masks have the 150 classes of scene "
                f"parsing, not the 59 of {kind}. Build them with: pa datasets build {kind} --root "
                f"{root} --out DIR."
            )
        return expected
    if build["dataset"] != kind:
        raise UsageError(
            f"{root} was built for {build['dataset']}, not for {kind}: use --dataset "
            f'{build["dataset"]}, or in pa.toml kind = "{build["dataset"]}".'
        )
    if build["labels_sha256"] != expected.sha256:
        raise FingerprintError(
            f"{root} was built with another version of the label list of {kind}: build it again "
            "into another folder."
        )
    return expected
