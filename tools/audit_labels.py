"""Recount the classes of an official release and compare them with the label lists of `pa`.

    python tools/audit_labels.py index   index_ade20k.mat       # ADE20K, release 2016_07_26
    python tools/audit_labels.py ade20k  ADE20K_2021_17_01      # full release
    python tools/audit_labels.py scenes  ADEChallengeData2016
    python tools/audit_labels.py pascal  pascal_part            # folder with Annotations_Part

The lists in `pa/data/datasets/segmentation/labels` are frozen: a difference is printed and changes
nothing. Exit code 1: an annotation is faulty, or a complete release gives another count.

Shapes: C names of the index (3,148), I images (22,210).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, SupportsInt, TypeVar

import numpy as np
import numpy.typing as npt

from pa.data.datasets import load
from pa.data.datasets.segmentation import ade20k, labels, masks, pascal, tree
from pa.errors import AnnotationError, MismatchError

T = TypeVar("T")
R = TypeVar("R")

# Expected counts of part names in both splits of the index, by what is required of them.
SHARES = {0.1: 221, 0.25: 215, 0.45: 209, 0.5: 206, 0.75: 197, 0.9: 182}
MIN_IMAGES = {2: 190, 3: 168, 5: 137, 10: 113, 20: 82}
MIN_INSTANCES = {2: 203, 3: 184, 5: 165, 10: 137, 20: 104}
MIN_TRAIN_IMAGES = {2: 221, 3: 216, 5: 207, 10: 188}
PART_NAMES = {"train": 464, "val": 243}  # names that are a part in at least one image
PAIR_INSTANCES = 50  # instances from which an (object, part) pair counts as one of 209
PASCAL_IMAGES = 10_103


@dataclass
class Audit:
    """Counts of one release: (what, found, smallest expected, largest expected)."""

    title: str
    is_complete: bool = True
    counts: list[tuple[str, int, int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, what: str, actual: SupportsInt, low: int, high: int | None = None) -> None:
        self.counts.append((what, int(actual), low, low if high is None else high))

    def differs(self, actual: int, low: int, high: int) -> bool:
        """Return whether a count is wrong; a subset of a release may give smaller ones."""
        return actual > high or (self.is_complete and actual < low)

    @property
    def is_sound(self) -> bool:
        return not self.faults and not any(self.differs(*count[1:]) for count in self.counts)

    def print(self) -> None:
        print(self.title if self.is_complete else f"{self.title} (a subset of the release)")
        for what, actual, low, high in self.counts:
            expected = str(low) if low == high else f"{low} to {high}"
            verdict = "  DIFFERS" if self.differs(actual, low, high) else ""
            print(f"  {what:<68} {actual:>7,}  expected {expected}{verdict}")
        for line in (*self.notes, *(f"FAULT {fault}" for fault in self.faults)):
            print(f"  {line}")


def threaded(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map in threads, in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(work, items)


# -- ADE20K: the index ------------------------------------------------------------------------


def audit_index(path: Path) -> Audit:
    """Count part names in `index_ade20k.mat`.

    The index has no parent links: neither the 59 objects nor their parts can be derived from it.
    """
    from scipy.io import loadmat

    try:
        index = loadmat(path, squeeze_me=True)["index"]
        names, files, instances, parts = (
            index[name].item()
            for name in ("objectnames", "filename", "objectPresence", "objectIsPart")
        )  # (C,), (I,), (C, I), (C, I)
    except Exception as error:  # noqa: BLE001 - scipy and numpy raise many types on other files
        raise AnnotationError(f"{path}: not the index of ADE20K: {error!r}.") from None
    is_train = np.array([str(name).startswith("ADE_train_") for name in files])
    train, val = (np.count_nonzero(parts[:, of] > 0, axis=1) for of in (is_train, ~is_train))
    both = (train > 0) & (val > 0)  # (C,)
    audit = Audit(f"ADE20K's index: {path}")
    audit.add("names that are a part anywhere", np.sum((train > 0) | (val > 0)), 476)
    audit.add("names that are a part in a training image", np.sum(train > 0), PART_NAMES["train"])
    audit.add("names that are a part in a validation image", np.sum(val > 0), PART_NAMES["val"])
    audit.add("names that are a part in both splits", np.sum(both), 231)
    for n, expected in MIN_IMAGES.items():
        actual = np.sum((train >= n) & (val >= n))
        audit.add(f"… in at least {n} images of each", actual, expected)
    in_train, in_val = (parts[:, of].sum(axis=1, dtype=np.float64) for of in (is_train, ~is_train))
    for n, expected in MIN_INSTANCES.items():
        audit.add(f"… {n} instances in each", np.sum((in_train >= n) & (in_val >= n)), expected)
    for n, expected in MIN_TRAIN_IMAGES.items():
        what = f"… {n} training images and one validation image"
        audit.add(what, np.sum((train >= n) & both), expected)
    share = (in_train + in_val) / np.maximum(instances.sum(axis=1, dtype=np.float64), 1)
    for level, expected in SHARES.items():
        what = f"… a part in more than {level:.0%} of its occurrences"
        audit.add(what, np.sum(both & (share > level)), expected)
    _add_list(audit, [str(name) for name in names], both, train, val)
    return audit


def _add_list(
    audit: Audit,
    names: list[str],
    both: npt.NDArray[np.bool_],
    train: npt.NDArray[np.int64],
    val: npt.NDArray[np.int64],
) -> None:
    """Compare the frozen list of parts with the names of the index (C,) and their images (C,)."""
    text = (resources.files(labels) / "ade20k-part.json").read_text(encoding="utf-8")
    dropped = {entry["part"] for entry in json.loads(text)["dropped"]}
    kept = both & ~np.isin(names, sorted(dropped))
    audit.add("names in both splits without those that the list drops", np.sum(kept), 209)
    classes = labels.load("ade20k-part").classes
    supported = sum(c.keys["evidence"] != "undecided" for c in classes)
    audit.add("classes of the list with a known owner among the 59", supported, 201, 217)
    agreeing = 0
    for entry in classes:
        number = entry.keys["ade20k_index"][0] - 1
        if number < len(names):
            actual = (names[number], int(train[number]), int(val[number]))
            listed = (
                entry.keys["ade20k_names"][0],
                *(entry.keys[f"{s}_images"] for s in PART_NAMES),
            )
            agreeing += actual == listed
    audit.add("classes of the list with the index's number and images", agreeing, len(classes))


# -- ADE20K: masks ----------------------------------------------------------------------------

# (value of the object 0..59, level, class number of the part) → instances
Parts = Counter[tuple[int, int, int]]


@dataclass(frozen=True)
class ImageParts:
    """Parts and objects (1 … 59) of one image, and its differences from its text file."""

    parts: Parts
    objects: frozenset[int]
    differences: tuple[str, ...] | None


def read_image(image: Path) -> ImageParts | str:
    """Read the parts and objects of one image of the full release; a fault is returned as text."""
    parts: Parts = Counter()
    try:
        layer = ade20k.read_objects(image)
        owners = ade20k.owner_table()[layer.codes].astype(np.int64)  # (H, W)
        levels = list(ade20k.read_parts(image, owners.shape))
        for level, (codes, instances) in enumerate(levels, 1):
            parts += _instances(owners, codes, instances, level)
        differences = ade20k.cross_check(image, layer, levels)
    except (AnnotationError, MismatchError) as error:
        return str(error)
    return ImageParts(parts, frozenset(np.unique(owners[owners > 0]).tolist()), differences)


def _instances(owners: Any, codes: Any, instances: Any, level: int) -> Parts:
    """Count the instances of one level; an instance belongs to the object of most of its pixels."""
    labelled = codes > 0
    keys = (codes[labelled].astype(np.int64) * 256 + instances[labelled]) * 64 + owners[labelled]
    values, pixels = np.unique(keys, return_counts=True)
    largest: dict[int, tuple[int, int]] = {}  # instance → (pixels, owner)
    for key, n in zip(values.tolist(), pixels.tolist(), strict=True):
        instance, owner = divmod(key, 64)
        largest[instance] = max(largest.get(instance, (0, 0)), (n, owner))
    return Counter((owner, level, instance // 256) for instance, (_, owner) in largest.items())


def audit_ade20k(root: Path) -> Audit:
    """Count objects and parts in `_seg` and `_parts_N` of the full release."""
    audit = Audit(f"ADE20K full: {root}")
    by_split: dict[str, Parts] = {}
    n_images = 0
    for split, paths in ade20k.find_release(root).items():
        images = ade20k.in_paper(split, paths)
        parts: Parts = Counter()
        objects: set[int] = set()
        with_text = 0
        for image, actual in zip(images, threaded(read_image, images), strict=True):
            if isinstance(actual, str):
                audit.faults.append(actual)
                continue
            parts += actual.parts
            objects |= actual.objects
            with_text += actual.differences is not None
            audit.notes += [f"{image.stem}: {line}" for line in actual.differences or ()]
        audit.notes.append(f"{split}: {len(images):,} images, {with_text:,} with a text file")
        audit.add(f"of the 59 objects, in {split}", len(objects), 59)
        n = len({part for _, _, part in parts})
        audit.add(f"part names in {split}, any object and level", n, PART_NAMES[split])
        by_split[split] = parts
        n_images += len(images)
    audit.is_complete = n_images == sum(ade20k.LAST_IMAGE.values())

    def in_both(keep: Callable[[int, int], bool]) -> int:
        """Count part names in both splits with an occurrence that `keep(owner, level)` accepts."""
        names = [{p for o, level, p in by_split.get(s, ()) if keep(o, level)} for s in PART_NAMES]
        return len(set.intersection(*names))

    audit.add("part names in both splits, any object and level", in_both(lambda o, lv: True), 231)
    audit.add("… of one of the 59 objects", in_both(lambda o, lv: o > 0), 201, 217)
    audit.add("… at level 1 of any object", in_both(lambda o, lv: lv == 1), 209)
    pairs: Counter[tuple[int, int]] = Counter()
    for parts in by_split.values():
        for (owner, level, part), n in parts.items():
            if owner and level == 1:
                pairs[owner, part] += n
    often = sum(n >= PAIR_INSTANCES for n in pairs.values())
    audit.add(f"pairs at level 1 with {PAIR_INSTANCES} instances or more", often, 209)
    return audit


def audit_scenes(root: Path) -> Audit:
    """Count which of the 59 objects the masks of ADEChallengeData2016 show (values 1 to 150)."""
    audit = Audit(f"ADEChallengeData2016: {root}")
    objects = labels.load("ade20k-object")
    chosen = [c.keys["ade150"] - 1 for c in objects.classes]
    n_images = 0
    for split in tree.list_splits(root):
        images = load("ade20k", "ade20k", root, split)
        paths = [images.root / mask for mask in images.table["mask"]]
        pixels = np.zeros(len(objects), np.int64)
        for counts in threaded(_scene_counts, paths):
            if isinstance(counts, str):
                audit.faults.append(counts)
            else:
                pixels += counts[chosen]
        audit.add(f"of the 59 objects, in {split}", np.count_nonzero(pixels), len(objects))
        n_images += len(paths)
    audit.is_complete = n_images == sum(ade20k.LAST_IMAGE.values())
    return audit


def _scene_counts(path: Path) -> npt.NDArray[np.int64] | str:
    try:
        values = masks.read_index(path)
        masks.check_range(values, ade20k.CHALLENGE_CLASSES, path)
    except AnnotationError as error:
        return str(error)
    return masks.count(values, ade20k.CHALLENGE_CLASSES)


# -- Pascal-Part ------------------------------------------------------------------------------


def audit_pascal(root: Path) -> Audit:
    """Count (class, part) pairs in every .mat of Pascal-Part, and list those not in the list."""
    mats = sorted((root / "Annotations_Part").glob("*.mat"))
    audit = Audit(f"Pascal-Part: {root}", is_complete=len(mats) == PASCAL_IMAGES)
    pairs: set[tuple[int, str]] = set()
    for values in threaded(_pascal_pairs, mats):
        if isinstance(values, str):
            audit.faults.append(values)
        else:
            pairs |= values
    known = pascal.part_values()
    audit.add("annotated images", len(mats), PASCAL_IMAGES)
    n_objects = len(labels.load("pascal-object"))
    audit.add("classes with parts", len({voc_class for voc_class, _ in pairs}), n_objects)
    audit.add("(class, part) pairs, numbered parts merged", len(pairs), len(known))
    audit.add("… of these in the list", len(pairs & set(known)), len(known))
    audit.notes += [f"not in the list: class {c}, part {p}" for c, p in sorted(pairs - set(known))]
    return audit


def _pascal_pairs(path: Path) -> set[tuple[int, str]] | str:
    try:
        objects = pascal.read_mat(path)
    except AnnotationError as error:
        return str(error)
    return {(o.voc_class, pascal.part_name(name)) for o in objects for name, _ in o.parts}


AUDITS = {
    "index": audit_index,
    "ade20k": audit_ade20k,
    "scenes": audit_scenes,
    "pascal": audit_pascal,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("release", choices=AUDITS)
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    audit = AUDITS[arguments.release](arguments.path)
    audit.print()
    sys.exit(not audit.is_sound)


if __name__ == "__main__":
    main()
