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
from pa.data.datasets.segmentation.build import Item, Painted, Plan
from pa.data.datasets.segmentation.masks import Map
from pa.errors import AnnotationError, MissingError

Silhouette = npt.NDArray[np.bool_]

VOC_PLACES = ("", "VOC2010", "VOCdevkit/VOC2010")
WHOLE = "all"  # the split where VOC2010's lists are not there
NUMBERED = re.compile(r"_\d+$")  # wheel_3 is a wheel
PART_RULES = {
    "file": "objects in file order, parts in file order, later overwrites earlier",
    "area": "objects in file order, inside an object larger parts first",
}

RELEASE = """  <root>/Annotations_Part/<id>.mat
  <root>/JPEGImages/<id>.jpg  or  <root>/[VOCdevkit/]VOC2010/JPEGImages; --images DIR elsewhere
  …/ImageSets/Main/{train,val}.txt     beside JPEGImages: the splits of VOC2010"""


@dataclass(frozen=True)
class Thing:
    """One annotated object: VOC class 1 … 20, silhouette (H, W), parts by name in file order."""

    voc_class: int
    name: str
    silhouette: Silhouette
    parts: tuple[tuple[str, Silhouette], ...]


# -- reading ----------------------------------------------------------------------------------


def read_mat(path: Path) -> list[Thing]:
    """Read the objects of one image. Raises `AnnotationError` for a file of another kind."""
    from scipy.io import loadmat

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
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise AnnotationError(
            f"{path}: not a file of Pascal-Part: expected the variable `anno` with objects; "
            f"found {found}."
        )
    try:
        return [_thing(entry) for entry in _entries(content["anno"].objects)]
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(f"{path}: not a file of Pascal-Part: {error}.") from None


def _entries(value: Any) -> list[Any]:
    """A MATLAB struct array as a list: one entry comes bare, none as an empty array."""
    return list(np.atleast_1d(value).ravel())


def _thing(entry: Any) -> Thing:
    silhouette = _silhouette(entry.mask)
    parts = tuple((str(p.part_name), _silhouette(p.mask)) for p in _entries(entry.parts))
    for name, mask in parts:
        if mask.shape != silhouette.shape:
            raise ValueError(f"part {name} is {mask.shape}, its object {silhouette.shape}")
    if entry.class_ind != int(entry.class_ind):
        raise ValueError(f"an object is of class {entry.class_ind}")
    return Thing(int(entry.class_ind), str(getattr(entry, "class")), silhouette, parts)


def _silhouette(mask: Any) -> Silhouette:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ValueError(f"a mask has the shape {array.shape}")
    return array > 0


# -- masks ------------------------------------------------------------------------------------


def part_name(name: str) -> str:
    """The name of a part without the number that tells several apart."""
    return NUMBERED.sub("", name)


@lru_cache(maxsize=1)
def part_values() -> dict[tuple[int, str], int]:
    """(VOC class, part name) → pixel value."""
    classes = labels.load("pascal-part").classes
    return {(c.keys["voc_class"], str(c.part)): c.value for c in classes}


@lru_cache(maxsize=1)
def object_values() -> dict[int, int]:
    """VOC class → pixel value."""
    return {c.keys["voc_class"]: c.value for c in labels.load("pascal-object").classes}


def paint_parts(things: list[Thing], path: Path, rule: str = "file") -> Map:
    """Paint the parts of every object (H, W); silhouettes paint nothing and erase nothing.

    File order is that of the official mat2map.m. It hides plates that are listed before the side
    of their vehicle; `area` keeps them. Raises `AnnotationError` for a part that is not listed.
    """
    values = _empty(things, path)
    known = part_values()
    for thing in things:
        parts = list(thing.parts)
        if rule == "area":
            parts.sort(key=lambda part: -int(part[1].sum()))
        for name, mask in parts:
            key = (thing.voc_class, part_name(name))
            if key not in known:
                raise AnnotationError(
                    f"{path}: {thing.name} (class {thing.voc_class}) has the part {name!r}, which "
                    "the list of 193 parts does not have."
                )
            values[mask] = known[key]
    return values


def paint_objects(things: list[Thing], path: Path) -> Map:
    """Paint the silhouettes (H, W); a class that is not listed paints 0 over what is there."""
    values = _empty(things, path)
    known = object_values()
    for thing in things:
        if not 1 <= thing.voc_class <= 20:
            raise AnnotationError(f"{path}: class {thing.voc_class}; VOC has the classes 1 to 20.")
        values[thing.silhouette] = known.get(thing.voc_class, 0)
    return values


def _empty(things: list[Thing], path: Path) -> Map:
    shapes = {thing.silhouette.shape for thing in things}
    if len(shapes) != 1:
        raise AnnotationError(
            f"{path}: {len(things)} objects with masks of {len(shapes)} sizes; expected one size."
        )
    return np.zeros(shapes.pop(), np.uint8)


def _paint(path: Path, dataset: str, rule: str) -> Painted:
    things = read_mat(path)
    if dataset == "pascal-object":
        return Painted(paint_objects(things, path))
    return Painted(paint_parts(things, path, rule))


# -- plans ------------------------------------------------------------------------------------


def plan(dataset: str, root: Path, images: Path | None, rule: str | None) -> Plan:
    """Pascal-Object or Pascal-Part, from the same files."""
    mats = find_mats(root)
    voc = find_voc(root, images)
    label_set = labels.load(dataset)
    text = PART_RULES[rule or "file"] if dataset == "pascal-part" else label_set.rule
    paint = partial(_paint, dataset=dataset, rule=rule or "file")
    splits, notes = {}, []
    for split, ids in find_ids(voc, mats).items():
        with_mat = [name for name in ids if name in mats]
        if len(with_mat) < len(ids):
            notes.append(f"{split}: {len(ids) - len(with_mat)} images of VOC2010 have no .mat")
        splits[split] = [
            Item(name, voc / "JPEGImages" / f"{name}.jpg", partial(paint, mats[name]))
            for name in with_mat
        ]
    in_a_list = {item.name for items in splits.values() for item in items}
    if left := [name for name in mats if name not in in_a_list]:
        notes.append(
            f"{len(left)} .mat files are of no image of VOC2010's lists and are left out, such as "
            f"{mats[left[0]].name}"
        )
    if WHOLE in splits:
        notes.append(f"no ImageSets/Main/train.txt in {voc}: all images are one split, {WHOLE}")
    return Plan(label_set, text, root, splits, tuple(notes))


def annotated(root: Path, images: Path | None) -> dict[str, list[str]]:
    """The ids of the annotated images of each split, sorted. Raises as `plan`."""
    mats = find_mats(root)
    lists = find_ids(find_voc(root, images), mats)
    return {split: [name for name in ids if name in mats] for split, ids in lists.items()}


def find_mats(root: Path) -> dict[str, Path]:
    """The annotation files by image id."""
    mats = {path.stem: path for path in sorted((root / "Annotations_Part").glob("*.mat"))}
    if not mats:
        raise MissingError(f"no Pascal-Part in {root}. Expected there:\n{RELEASE}")
    return mats


def has_voc(root: Path) -> bool:
    """Whether VOC2010's images lie under the root of the annotations."""
    return any((root / place / "JPEGImages").is_dir() for place in VOC_PLACES)


def find_voc(root: Path, images: Path | None) -> Path:
    """The folder of VOC2010, which holds JPEGImages."""
    base = images or root  # where --images names a place, no other is looked at
    for place in VOC_PLACES:
        if (base / place / "JPEGImages").is_dir():
            return base / place
    raise MissingError(
        f"no folder JPEGImages in {images or root}: give the images of VOC2010 with --images DIR. "
        f"Expected:\n{RELEASE}"
    )


def find_ids(voc: Path, mats: dict[str, Path]) -> dict[str, list[str]]:
    """The image ids of VOC2010's splits, sorted; without its lists all annotated images.

    Raises `AnnotationError` for an image that is in both lists.
    """
    lists = {name: voc / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val")}
    found = {split: read_ids(path) for split, path in lists.items() if path.is_file()}
    both = sorted(set(found.get("train", ())) & set(found.get("val", ())))
    if both:
        raise AnnotationError(
            f"{lists['train']} and {lists['val'].name}: {both[0]} is in both, and {len(both)} such "
            f"images in all. Expected: no image in two splits. Take the lists of VOC2010."
        )
    return found or {WHOLE: sorted(mats)}
