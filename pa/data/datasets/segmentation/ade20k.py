"""ADE20K: label maps of objects and parts from the official releases.

Full dataset, both 2016/17 (`_atr.txt`) and 2021_17_01 (`.json`):

    <root>/**/ADE_train_00000001.jpg, …_seg.png, …_parts_1.png, …_parts_2.png, … (.json or _atr.txt)

In `_seg` and `_parts_N` the class is (R // 10) * 256 + G, counted from 1 in the dataset's index of
3,148 names; B numbers the instances; 0 is unlabelled. Masks do not need the text files, which name
every object and part with its level: they show whether a release numbers its classes as the label
lists do, and whether its masks are complete. Scene parsing: ADEChallengeData2016.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pa.data.datasets.annotations import parse_json as load_json
from pa.data.datasets.annotations import read_text as load_text
from pa.data.datasets.listing import list_images
from pa.data.datasets.segmentation import labels, masks
from pa.data.datasets.segmentation.build import BuildPlan, Item, LabelMap, Release
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.datasets.segmentation.tree import find_splits
from pa.errors import AnnotationError, MismatchError, MissingError

Codes = npt.NDArray[np.int32]

MAX_NUMBER = 26 * 256  # class numbers are below this: R // 10 is at most 25
LAST_IMAGE = {"train": 20_210, "val": 2_000}  # the 2021 release has more training images
CHALLENGE_CLASSES = 150
IMAGE = re.compile(r"ADE_(train|val)_(\d{8})\.jpg")
INSTANCE_FOLDER = re.compile(r"ADE_(train|val)_\d{8}")  # instance masks of the 2021 release
SEG_RULE = "seg: the 59 objects in _seg.png of the full release, at its resolution"
ENCODING = "latin-1"  # names are ASCII; free text in the same file is not always valid UTF-8
ATR_FIELDS = 6  # instance # part level # occluded # class name # raw name # attributes

FULL = """  <root>/**/ADE_{train,val}_<8 digits>.jpg with _seg.png, _parts_1.png, … next to it
(ADE20K full, 2016_07_26 or 2021_17_01; _atr.txt or .json serve as a cross-check)"""
CHALLENGE = """  <root>/images/{training,validation}/*.jpg
  <root>/annotations/{training,validation}/*.png     (ADEChallengeData2016)"""
READABLE = """  <root>/images/{training,validation}/*.jpg
  <root>/annotations/{training,validation}/*.png     the layout of ADEChallengeData2016"""


class Layer(NamedTuple):
    """One mask of an image: class numbers (H, W) and the numbers of their instances (H, W)."""

    codes: Codes
    instances: Map

    def counts(self) -> Counter[int]:
        """Return the number of instances of each class number."""
        pixels = np.bincount((self.codes * 256 + self.instances).ravel())
        return Counter((np.flatnonzero(pixels[256:]) // 256 + 1).tolist())  # without class 0


# -- masks of a release -----------------------------------------------------------------------


def find_release(root: Path) -> dict[str, list[Path]]:
    """Return the images of the full release by split, sorted by name.

    Empty if no image has a `_seg` file: other trees name their images the same way.
    """
    images: dict[str, list[Path]] = {"train": [], "val": []}
    for folder, folders, files in os.walk(root):
        # `os.walk` does not enter folders that are removed here.
        folders[:] = [name for name in folders if not INSTANCE_FOLDER.fullmatch(name)]
        for name in files:
            if match := IMAGE.fullmatch(name):
                images[match[1]].append(Path(folder, name))
    if not any(seg_path(path).is_file() for paths in images.values() for path in paths):
        return {}
    return {split: sorted(paths, key=lambda p: p.name) for split, paths in images.items() if paths}


def in_paper(split: str, paths: list[Path]) -> list[Path]:
    """Return the 20,210 training or 2,000 validation images of the paper, by their numbers."""
    return [path for path in paths if int(path.stem[-8:]) <= LAST_IMAGE[split]]


def read_layer(path: Path) -> Layer:
    """Read a `_seg` or `_parts_N` file."""
    pixels = masks.read_rgb(path)  # (H, W, 3)
    return Layer(pixels[..., 0].astype(np.int32) // 10 * 256 + pixels[..., 1], pixels[..., 2])


def seg_path(image: Path) -> Path:
    return image.with_name(f"{image.stem}_seg.png")


def read_objects(image: Path) -> Layer:
    """Read the objects of an image. Raise `AnnotationError` if it has no `_seg` file."""
    path = seg_path(image)
    if not path.is_file():
        raise AnnotationError(f"{image}: {path.name} is not next to it: this release has no masks.")
    return read_layer(path)


def read_parts(image: Path, shape: tuple[int, ...]) -> Iterator[Layer]:
    """Yield the parts of an image, level 1, 2, …, of the shape (H, W) of the objects."""
    for level in itertools.count(1):
        path = image.with_name(f"{image.stem}_parts_{level}.png")
        if not path.is_file():
            return
        layer = read_layer(path)
        masks.check_size(layer.instances, (shape[1], shape[0]), path)
        yield layer


# -- text files of a release ------------------------------------------------------------------


class TextEntry(NamedTuple):
    """One object or part: level (0 = object), class name, and class number if the file has it."""

    level: int
    name: str
    number: int | None = None


@lru_cache(maxsize=1)
def known_names() -> dict[int, str]:
    """Return class number → full class name for every class of the object and part lists."""
    return {
        number: name
        for dataset in ("ade20k-object", "ade20k-part")
        for entry in labels.load(dataset).classes
        for number, name in zip(entry.keys["ade20k_index"], entry.keys["ade20k_names"], strict=True)
    }


def read_text(image: Path) -> tuple[Path, list[TextEntry]] | None:
    """Read the text file of an image; None if it has none. Raise `AnnotationError`."""
    for path, parse in (
        (image.with_suffix(".json"), parse_json),
        (image.with_name(f"{image.stem}_atr.txt"), parse_atr),
    ):
        if path.is_file():
            return path, parse(load_text(path, ENCODING), path)
    return None


def parse_json(text: str, path: Path) -> list[TextEntry]:
    """Read the objects of a `.json` of 2021_17_01."""
    content: Any = load_json(text, path)
    try:
        return [
            TextEntry(int(entry["parts"]["part_level"]), str(entry["name"]), int(entry["name_ndx"]))
            for entry in content["annotation"]["object"]
        ]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        actual = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise AnnotationError(
            f"{path}: not an annotation of ADE20K 2021_17_01: expected annotation.object[] with "
            f"name, name_ndx and parts.part_level; found {actual[:80]}."
        ) from None


def parse_atr(text: str, path: Path) -> list[TextEntry]:
    """Read the lines of an `_atr.txt` of 2016/17: six fields between `#`."""
    entries = []
    # Not splitlines: in latin-1 it also breaks at the second byte of an Å in UTF-8.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fields = [part.strip() for part in line.split("#", ATR_FIELDS - 1)]
        if len(fields) != ATR_FIELDS or not re.fullmatch("[0-9]{1,4}", fields[1]):
            raise AnnotationError(
                f"{path}, line {number}: expected `instance # part level # occluded # class name # "
                f"raw name # attributes`; found {line[:60]!r}."
            )
        entries.append(TextEntry(int(fields[1]), fields[3]))
    return entries


def check_numbers(path: Path, entries: Iterable[TextEntry]) -> None:
    """Raise `MismatchError` if a text file numbers or names a listed class differently."""
    known = known_names()
    names = set(known.values())
    for _, name, number in entries:
        listed = None if number is None else known.get(number)
        if number is None or listed == name or (listed is None and name not in names):
            continue
        expected = f"{name!r} has another" if listed is None else f"{number} is {listed!r}"
        raise MismatchError(
            f"{path}: {name!r} has the number {number}. In the index of 2016_07_26, on which the "
            f"label lists are based, {expected}. This release numbers its classes differently: "
            f"masks made from it would be wrong."
        )


def cross_check(image: Path, objects: Layer, levels: list[Layer] | None) -> tuple[str, ...] | None:
    """Compare the instances in the masks with those named by the .json or _atr.txt of the image.

    `levels` are the parts; None compares the objects only. Return one line per differing level, or
    None for an image without text. Raise `AnnotationError` for a faulty text, `MismatchError` for
    a .json that numbers a known class differently.
    """
    text = read_text(image)
    if text is None:
        return None
    path, entries = text
    check_numbers(path, entries)
    shown = [layer.counts() for layer in (objects, *(levels or ()))]
    if levels is not None:  # levels that only the text has
        deepest = max((entry.level for entry in entries), default=0)
        shown += [Counter()] * (deepest + 1 - len(shown))
    known = known_names()
    names = set(known.values())
    lines = []
    for level, in_mask in enumerate(shown):
        # Only classes of the label lists: no label depends on others. By name, since `_atr.txt`
        # has no numbers; several numbers may have one name.
        masked: Counter[str] = Counter()
        for number in in_mask.keys() & known.keys():
            masked[known[number]] += in_mask[number]
        named = Counter(e.name for e in entries if e.level == level and e.name in names)
        if differing := [
            f"{name} {masked[name]} against {named[name]}"
            for name in sorted(masked | named)
            if masked[name] != named[name]
        ]:
            title = f"level {level}, instances in the mask against {path.name}"
            lines.append(f"{title}: {', '.join(differing)}")
    return tuple(lines)


# -- label maps -------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def owner_table() -> Map:
    """Return class number → 1 … 59 of ADE20K-Object, else 0: (MAX_NUMBER,), uint8."""
    objects = labels.load("ade20k-object")
    pairs = [(number, c.value) for c in objects.classes for number in c.keys["ade20k_index"]]
    return masks.table(pairs, MAX_NUMBER)


@lru_cache(maxsize=1)
def part_table() -> Map:
    """Return class number of a part → pixel value, else 0: (MAX_NUMBER,), uint8."""
    parts = labels.load("ade20k-part").classes
    return masks.table([(c.keys["ade20k_index"][0], c.value) for c in parts], MAX_NUMBER)


def rasterize_parts(owners: Codes, levels: Iterable[Codes]) -> Map:
    """Return the pixel values (H, W) of the parts, drawn from coarse to fine.

    `owners` (H, W) holds the class number of the object at each pixel; parts count on the 59
    objects only. A part that is not listed leaves the listed coarser one visible.
    """
    has_owner = owner_table()[owners] > 0  # (H, W)
    values = np.zeros(owners.shape, np.uint8)
    for codes in levels:
        parts = part_table()[codes]  # (H, W), 0: not listed
        np.copyto(values, parts, where=has_owner & (parts > 0))
    return values


def rasterize(image: Path, dataset: str) -> LabelMap:
    """Draw the parts or the objects of an image of the full release."""
    objects = read_objects(image)
    if dataset == "ade20k-object":
        return LabelMap(owner_table()[objects.codes], cross_check(image, objects, None) or ())
    levels = list(read_parts(image, objects.codes.shape))
    values = rasterize_parts(objects.codes, (layer.codes for layer in levels))
    return LabelMap(values, cross_check(image, objects, levels) or ())


def convert_challenge(path: Path, label_set: LabelSet) -> LabelMap:
    """Convert a mask of ADEChallengeData2016 to a label set of 150 or 59 classes."""
    values = masks.read_index(path)  # (H, W), 0 … 150
    masks.check_range(values, CHALLENGE_CLASSES, path)
    pairs = [(c.keys.get("ade150", c.value), c.value) for c in label_set.classes]
    return LabelMap(masks.table(pairs, 256)[values])


# -- build plans ------------------------------------------------------------------------------


def plan(
    dataset: str, root: Path, images: Path | None = None, rule: str | None = None
) -> BuildPlan:
    """Plan ADE20K-Part from the full release, the others from ADEChallengeData2016.

    Rule `seg` takes ADE20K-Object from the full release. It is not the rule of the paper, but gives
    objects and parts of the same images.
    """
    label_set = labels.load(dataset)
    splits: dict[str, list[Item]] = {}
    if dataset != "ade20k-part" and rule != "seg":
        for split, folders in find_splits(root).items():
            splits[split] = []
            for path in list_images(root, folders.images)["path"]:
                image = root / path
                mask = root / folders.masks / f"{image.stem}.png"
                draw = partial(convert_challenge, mask, label_set)
                splits[split].append(Item(image.stem, image, draw))
        if not any(splits.values()):
            raise MissingError(f"no scene-parsing masks in {root}. Expected there:\n{CHALLENGE}")
        return BuildPlan(label_set, label_set.rule, root, splits)
    release = find_release(root)
    if not release:
        raise MissingError(f"no image of ADE20K in {root}. Expected there:\n{FULL}")
    notes = []
    for split, paths in release.items():
        kept = in_paper(split, paths)
        if beyond := len(paths) - len(kept):
            notes.append(f"{split}: {beyond} images above number {LAST_IMAGE[split]} skipped")
        splits[split] = [Item(p.stem, p, partial(rasterize, p, dataset)) for p in kept]
    text = SEG_RULE if rule == "seg" else label_set.rule
    return BuildPlan(label_set, text, root, splits, tuple(notes))


RELEASES = {
    "ade20k": Release(plan, LAST_IMAGE, readable=READABLE),
    "ade20k-object": Release(plan, LAST_IMAGE, FULL, readable=READABLE, rules=("challenge", "seg")),
    "ade20k-part": Release(plan, LAST_IMAGE, FULL),
}
