"""ADE20K: label maps of objects and parts from the official releases.

Full dataset, 2016/17 (`_atr.txt`) and 2021_17_01 (`.json`) alike:

    <root>/**/ADE_train_00000001.jpg, …_seg.png, …_parts_1.png, …_parts_2.png, … (.json or _atr.txt)

In `_seg` and `_parts_N` the class is (R // 10) * 256 + G, counted from 1 in the dataset's index of
3,148 names; B tells instances apart; 0 is nothing. Scene parsing: ADEChallengeData2016.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pa.data.datasets.listing import list_images
from pa.data.datasets.segmentation import labels, masks
from pa.data.datasets.segmentation.ade20k_text import check_numbers, read_text
from pa.data.datasets.segmentation.build import Item, Painted, Plan
from pa.data.datasets.segmentation.labels import DEFAULT, LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.datasets.segmentation.tree import find_splits
from pa.errors import AnnotationError, MissingError

Codes = npt.NDArray[np.int32]

NUMBERS = 26 * 256  # R // 10 is at most 25
LARGEST = {"train": 20210, "val": 2000}  # the 2021 release holds more training images
CHALLENGE_CLASSES = 150
IMAGE = re.compile(r"ADE_(train|val)_(\d{8})\.jpg")
INSTANCES = re.compile(r"ADE_(train|val)_\d{8}")  # the 2021 release's folders of instance masks

RELEASE = """  <root>/**/ADE_{train,val}_<8 digits>.jpg with _seg.png, _parts_1.png, … beside it
(ADE20K full, 2016_07_26 or 2021_17_01; _atr.txt or .json serve as a cross-check)"""
CHALLENGE = """  <root>/images/{training,validation}/*.jpg
  <root>/annotations/{training,validation}/*.png     (ADEChallengeData2016)"""


class Layer(NamedTuple):
    """One mask of an image: class numbers (H, W) and the numbers of their instances (H, W)."""

    codes: Codes
    instances: Map

    def counts(self) -> Counter[int]:
        """How many instances each class number has."""
        pixels = np.bincount((self.codes * 256 + self.instances).ravel())
        return Counter((np.flatnonzero(pixels[256:]) // 256 + 1).tolist())


@dataclass(frozen=True)
class PartRule:
    """How parts become classes: how many levels count, and whether the object at the pixel does."""

    levels: int | None
    needs_owner: bool


# The deepest listed part wins (default); level 1 alone (the alternatives). See the label files.
RULES = {
    DEFAULT: PartRule(None, True),
    "level1": PartRule(1, False),
    "pairs50": PartRule(1, True),
}


# -- the files of a release -------------------------------------------------------------------


def find_release(root: Path) -> dict[str, list[Path]]:
    """The images of the full release by split, sorted by name, also those beyond the paper.

    Nothing where no image has its `_seg`: other trees name their images the same way.
    """
    found: dict[str, list[Path]] = {"train": [], "val": []}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not INSTANCES.fullmatch(name)]
        for name in files:
            if match := IMAGE.fullmatch(name):
                found[match[1]].append(Path(folder, name))
    if not any(seg_path(path).is_file() for paths in found.values() for path in paths):
        return {}
    return {split: sorted(paths, key=lambda p: p.name) for split, paths in found.items() if paths}


def of_the_paper(split: str, paths: list[Path]) -> list[Path]:
    """The 20,210 training and 2,000 validation images, by their numbers."""
    return [path for path in paths if int(path.stem[-8:]) <= LARGEST[split]]


def read_layer(path: Path) -> Layer:
    """Read a `_seg` or `_parts_N` file; class numbers are 1-based in the index, 0 = nothing."""
    pixels = masks.read_rgb(path)
    return Layer(pixels[..., 0].astype(np.int32) // 10 * 256 + pixels[..., 1], pixels[..., 2])


def seg_path(image: Path) -> Path:
    return image.with_name(f"{image.stem}_seg.png")


def read_objects(image: Path) -> Layer:
    """The objects of an image. Raises `AnnotationError` where it has no `_seg`."""
    path = seg_path(image)
    if not path.is_file():
        raise AnnotationError(f"{image}: {path.name} is not beside it: no masks in this release.")
    return read_layer(path)


def part_paths(image: Path) -> Iterator[Path]:
    """The files of the parts, level 1, 2, …; a missing file ends them."""
    for level in itertools.count(1):
        path = image.with_name(f"{image.stem}_parts_{level}.png")
        if not path.is_file():
            return
        yield path


def read_parts(image: Path, shape: tuple[int, ...]) -> Iterator[Layer]:
    """The parts of an image, level 1, 2, …, of the shape (H, W) of the objects."""
    for path in part_paths(image):
        layer = read_layer(path)
        masks.check_size(layer.instances, (shape[1], shape[0]), path)
        yield layer


# -- masks ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def owner_table() -> Map:
    """Class number → 1 … 59 of ADE20K-Object, else 0: (NUMBERS,), uint8."""
    objects = labels.load("ade20k-object")
    pairs = [(number, c.value) for c in objects.classes for number in c.keys["ade20k_index"]]
    return masks.table(pairs, NUMBERS)


@lru_cache(maxsize=3)
def part_table(list_name: str) -> Map:
    """(value of the object, class number of the part) → pixel value: (60, NUMBERS), uint8.

    Row 0 stands for pixels of no object of the 59.
    """
    label_set = labels.load("ade20k-part", list_name)
    objects = {c.name: c.value for c in labels.load("ade20k-object").classes}
    table = np.zeros((len(objects) + 1, NUMBERS), np.uint8)
    first = 1 if RULES[list_name].needs_owner else 0
    for entry in label_set.classes:
        rows = slice(first, None) if entry.object is None else objects[entry.object]
        table[rows, entry.keys["ade20k_index"][0]] = entry.value
    return table


def paint_parts(owners: Codes, levels: Iterable[Codes], list_name: str) -> Map:
    """Paint the parts, coarse to fine: (H, W) pixel values.

    A part that is not listed changes nothing: the listed coarser one shows through.
    """
    table, rule = part_table(list_name), RULES[list_name]
    objects = owner_table()[owners]
    values = np.zeros(owners.shape, np.uint8)
    for level, codes in enumerate(levels, 1):
        if rule.levels is not None and level > rule.levels:
            break
        found = table[objects, codes]
        np.copyto(values, found, where=found > 0)
    return values


def _paint_part_image(image: Path, list_name: str) -> Painted:
    objects = read_objects(image)
    levels = list(read_parts(image, objects.codes.shape))
    values = paint_parts(objects.codes, (layer.codes for layer in levels), list_name)
    return Painted(values, cross_check(image, objects, levels) or ())


def cross_check(image: Path, objects: Layer, levels: list[Layer] | None) -> tuple[str, ...] | None:
    """Compare the instances in the masks with those that the .json or _atr.txt beside them names.

    `levels` are the parts; None compares the objects alone. Returns one line per level that
    differs, or None where there is no text. Raises `AnnotationError` for a text that cannot be
    read, `MismatchError` where a .json numbers a known class differently.
    """
    text = read_text(image)
    if text is None:
        return None
    check_numbers(text)
    shown = [layer.counts() for layer in (objects, *(levels or ()))]
    if levels is not None:  # levels that the text alone has
        shown += [Counter()] * (text.levels - len(shown))
    told = (text.differences(level, counts) for level, counts in enumerate(shown))
    return tuple(line for line in told if line)


def paint_objects_of_seg(image: Path) -> Painted:
    """The 59 objects from `_seg` of the full release (an own rule, not the paper's)."""
    objects = read_objects(image)
    return Painted(owner_table()[objects.codes], cross_check(image, objects, None) or ())


def paint_challenge(path: Path, label_set: LabelSet) -> Painted:
    """A mask of ADEChallengeData2016 in the values of a label set (150 or 59 classes)."""
    values = masks.read_index(path)
    masks.check_range(values, CHALLENGE_CLASSES, path)
    pairs = [(c.keys.get("ade150", c.value), c.value) for c in label_set.classes]
    return Painted(masks.table(pairs, 256)[values])


# -- plans ------------------------------------------------------------------------------------


def plan_parts(root: Path, list_name: str, rule: str | None) -> Plan:
    """ADE20K-Part from the full release."""
    label_set = labels.load("ade20k-part", list_name)
    paint = partial(_paint_part_image, list_name=list_name)
    return _plan_release(root, label_set, label_set.rule, paint)


def plan_objects(root: Path, list_name: str, rule: str | None) -> Plan:
    """ADE20K-Object, or with `rule` seg the same classes from the full release's `_seg`."""
    label_set = labels.load("ade20k-object", list_name)
    if rule == "seg":
        text = "seg: the 59 objects in _seg.png of the full release, at its resolution"
        return _plan_release(root, label_set, text, paint_objects_of_seg)
    return _plan_challenge(root, label_set)


def plan_scenes(root: Path, list_name: str, rule: str | None) -> Plan:
    """The 150 classes of ADEChallengeData2016, checked and copied."""
    return _plan_challenge(root, labels.load("ade20k", list_name))


def _plan_release(
    root: Path, label_set: LabelSet, rule: str, paint: Callable[[Path], Painted]
) -> Plan:
    release = find_release(root)
    if not release:
        raise MissingError(f"no image of ADE20K in {root}. Expected there:\n{RELEASE}")
    splits, notes = {}, []
    for split, paths in release.items():
        kept = of_the_paper(split, paths)
        if beyond := len(paths) - len(kept):
            notes.append(f"{split}: {beyond} images above number {LARGEST[split]} left out")
        splits[split] = [Item(p.stem, p, partial(paint, p)) for p in kept]
    return Plan(label_set, rule, root, splits, tuple(notes))


def _plan_challenge(root: Path, label_set: LabelSet) -> Plan:
    splits = {}
    for split, folders in find_splits(root).items():
        splits[split] = [
            Item(image.stem, image, partial(paint_challenge, mask, label_set))
            for path in list_images(root, folders.images)["path"]
            for image in [root / path]
            for mask in [root / folders.masks / f"{image.stem}.png"]
        ]
    if not any(splits.values()):
        raise MissingError(f"no scene-parsing masks in {root}. Expected there:\n{CHALLENGE}")
    return Plan(label_set, label_set.rule, root, splits)
