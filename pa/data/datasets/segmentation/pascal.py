"""Pascal-Part: label maps of objects and parts from the official `.mat` files.

<root>/Annotations_Part/<id>.mat            the Pascal-Part release
<root>/[VOCdevkit/]VOC2010/JPEGImages       VOC2010, here or under --images
<root>/[VOCdevkit/]VOC2010/ImageSets/Main   train.txt, val.txt
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.datasets.listing import read_ids
from pa.data.datasets.segmentation import labels
from pa.data.datasets.segmentation.build import BuildPlan, Item, LabelMap, Release
from pa.data.datasets.segmentation.masks import Map
from pa.errors import AnnotationError, MissingError

Silhouette = npt.NDArray[np.bool_]

VOC_FOLDERS = ("", "VOC2010", "VOCdevkit/VOC2010")  # as unpacked, or as in the archive
WHOLE = "all"  # name of the only split if VOC2010's lists are missing
NUMBERED = re.compile(r"_\d+$")  # wheel_3 is a wheel
PART_RULES = {
    "file": "objects in file order, parts in file order, later overwrites earlier",
    "area": "objects in file order, inside an object larger parts first",
}

LAYOUT = """  <root>/Annotations_Part/<id>.mat
  <root>/JPEGImages/<id>.jpg  or  <root>/[VOCdevkit/]VOC2010/JPEGImages; --images DIR elsewhere
  …/ImageSets/Main/{train,val}.txt     next to JPEGImages: the splits of VOC2010"""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object: VOC class 1 … 20, silhouette (H, W), parts by name in file order."""

    voc_class: int
    name: str
    silhouette: Silhouette  # (H, W)
    parts: tuple[tuple[str, Silhouette], ...]  # (H, W) each


# -- reading ----------------------------------------------------------------------------------


def read_mat(path: Path) -> list[AnnotatedObject]:
    """Read the objects of one image. Raise `AnnotationError` for any other file."""
    from scipy.io import loadmat  # takes long to import

    if not path.is_file():
        raise AnnotationError(f"{path}: no such file.")
    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError:
        raise AnnotationError(
            f"{path}: a MATLAB file of version 7.3. Expected: the older format of the official "
            f"Pascal-Part."
        ) from None
    except Exception as error:  # noqa: BLE001 - scipy raises many types on what is not MATLAB
        raise AnnotationError(f"{path}: not a MATLAB file: {error}.") from None
    if "anno" not in content or not hasattr(content["anno"], "objects"):
        actual = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise AnnotationError(
            f"{path}: not a file of Pascal-Part: expected the variable `anno` with objects; "
            f"found {actual}."
        )
    try:
        objects = []
        for entry in _entries(content["anno"].objects):
            silhouette = _silhouette(entry.mask)
            parts = tuple((str(p.part_name), _silhouette(p.mask)) for p in _entries(entry.parts))
            for name, mask in parts:
                if mask.shape != silhouette.shape:
                    raise ValueError(f"part {name} is {mask.shape}, its object {silhouette.shape}")
            if entry.class_ind != int(entry.class_ind):
                raise ValueError(f"an object is of class {entry.class_ind}")
            name = str(getattr(entry, "class"))
            objects.append(AnnotatedObject(int(entry.class_ind), name, silhouette, parts))
        return objects
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(f"{path}: not a file of Pascal-Part: {error}.") from None


def _entries(value: Any) -> list[Any]:
    """Return a MATLAB struct array as a list: squeezing makes one entry a scalar."""
    return list(np.atleast_1d(value).ravel())


def _silhouette(mask: Any) -> Silhouette:
    if np.ndim(mask) != 2:
        raise ValueError(f"a mask has the shape {np.shape(mask)}")
    return np.asarray(mask) > 0  # (H, W)


# -- label maps -------------------------------------------------------------------------------


def part_name(name: str) -> str:
    """Return the name of a part without the number that distinguishes instances."""
    return NUMBERED.sub("", name)


@lru_cache(maxsize=1)
def part_values() -> dict[tuple[int, str], int]:
    """Return (VOC class, part name) → pixel value."""
    classes = labels.load("pascal-part").classes
    return {(c.keys["voc_class"], str(c.part)): c.value for c in classes}


def rasterize_parts(objects: list[AnnotatedObject], path: Path, rule: str = "file") -> Map:
    """Return the pixel values (H, W) of the parts of every object; silhouettes are not drawn.

    File order hides plates listed before the side of their vehicle; rule `area` keeps them. Raise
    `AnnotationError` for a part that is not listed.
    """
    values = _empty(objects, path)
    known = part_values()
    for entry in objects:
        parts = list(entry.parts)
        if rule == "area":
            # Small parts last, so that they are on top.
            parts.sort(key=lambda part: -int(part[1].sum()))
        for name, mask in parts:
            key = (entry.voc_class, part_name(name))
            if key not in known:
                raise AnnotationError(
                    f"{path}: {entry.name} (class {entry.voc_class}) has the part {name!r}, which "
                    "is not in the list of 193 parts."
                )
            # Later parts overwrite earlier ones, as in the official mat2map.m.
            values[mask] = known[key]
    return values


def rasterize_objects(objects: list[AnnotatedObject], path: Path) -> Map:
    """Return the pixel values (H, W) of the silhouettes; unlisted classes overwrite with 0."""
    known = {c.keys["voc_class"]: c.value for c in labels.load("pascal-object").classes}
    values = _empty(objects, path)
    for entry in objects:
        if not 1 <= entry.voc_class <= 20:
            raise AnnotationError(f"{path}: class {entry.voc_class}; VOC has the classes 1 to 20.")
        values[entry.silhouette] = known.get(entry.voc_class, 0)
    return values


def _empty(objects: list[AnnotatedObject], path: Path) -> Map:
    """Return a map without labels, of the size that all silhouettes share."""
    shapes = {entry.silhouette.shape for entry in objects}
    if len(shapes) != 1:  # 0: an image without objects
        raise AnnotationError(
            f"{path}: {len(objects)} objects with masks of {len(shapes)} sizes; expected one size."
        )
    return np.zeros(shapes.pop(), np.uint8)


def rasterize(path: Path, dataset: str, rule: str) -> LabelMap:
    objects = read_mat(path)
    if dataset == "pascal-object":
        return LabelMap(rasterize_objects(objects, path))
    return LabelMap(rasterize_parts(objects, path, rule))


# -- build plans ------------------------------------------------------------------------------


def plan(
    dataset: str, root: Path, images: Path | None = None, rule: str | None = None
) -> BuildPlan:
    """Plan Pascal-Object or Pascal-Part from the same files; VOC2010 is below `images` or `root`.

    Raise `MissingError` without annotations or images, `AnnotationError` for an image that is in
    both lists of VOC2010.
    """
    mats = {path.stem: path for path in sorted((root / "Annotations_Part").glob("*.mat"))}
    if not mats:
        raise MissingError(f"no Pascal-Part in {root}. Expected there:\n{LAYOUT}")
    folders = [(images or root) / name for name in VOC_FOLDERS]
    voc = next((folder for folder in folders if (folder / "JPEGImages").is_dir()), None)
    if voc is None:
        raise MissingError(
            f"no folder JPEGImages in {images or root}: give the images of VOC2010 with --images "
            f"DIR. Expected:\n{LAYOUT}"
        )
    label_set = labels.load(dataset)
    text = PART_RULES[rule or "file"] if dataset == "pascal-part" else label_set.rule
    # Without the lists of VOC2010 all annotated images are one split.
    lists = {name: voc / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val")}
    ids_of = {split: read_ids(path) for split, path in lists.items() if path.is_file()}
    both = sorted(set(ids_of.get("train", ())) & set(ids_of.get("val", ())))
    if both:
        raise AnnotationError(
            f"{lists['train']} and {lists['val'].name}: {both[0]} is in both, and {len(both)} such "
            f"images in total. Expected: no image in two splits. Use the lists of VOC2010."
        )
    splits, notes = {}, []
    for split, ids in (ids_of or {WHOLE: sorted(mats)}).items():
        with_mat = [name for name in ids if name in mats]
        if len(with_mat) < len(ids):
            notes.append(f"{split}: {len(ids) - len(with_mat)} images of VOC2010 have no .mat")
        images_of = {name: voc / "JPEGImages" / f"{name}.jpg" for name in with_mat}
        splits[split] = [
            Item(name, image, partial(rasterize, mats[name], dataset, rule or "file"))
            for name, image in images_of.items()
        ]
    in_splits = {item.name for items in splits.values() for item in items}
    if unlisted := [name for name in mats if name not in in_splits]:
        notes.append(
            f"{len(unlisted)} .mat files belong to no image in VOC2010's lists and are skipped, "
            f"such as {mats[unlisted[0]].name}"
        )
    if WHOLE in splits:
        notes.append(f"no ImageSets/Main/train.txt in {voc}: all images are one split, {WHOLE}")
    return BuildPlan(label_set, text, root, splits, tuple(notes))


VOC_IMAGES = {"train": 4_998, "val": 5_105}  # per split, as stated by the paper
WINDOWS = (480, 161, 3840, 480, 520, 520)  # crop, stride, test and train sides
RELEASES = {
    "pascal-object": Release(plan, VOC_IMAGES, LAYOUT, windows=WINDOWS),
    "pascal-part": Release(plan, VOC_IMAGES, LAYOUT, rules=tuple(PART_RULES), windows=WINDOWS),
}
