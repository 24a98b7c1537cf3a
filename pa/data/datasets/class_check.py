"""The class counts of a segmentation dataset, from its own files, beside the paper's.

A difference is reported and changes nothing: the lists are frozen.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pa.data import labels, masks
from pa.data.datasets import Images, ade20k, pascal, tree
from pa.data.datasets.ade20k_index import Count, count_index, read_index
from pa.data.labels import LabelSet
from pa.errors import AnnotationError, MismatchError, UnknownNameError
from pa.progress import Progress

T = TypeVar("T")

PAIR_INSTANCES = 50  # from which an (object, part) pair is in the list pairs50
BOTH = ("train", "val")
PASCAL_IMAGES = 10_103
Size = tuple[int, int]
EMPTY: Mapping[str, Size] = {}
NAMES_IN = {"train": "464", "val": "243"}  # by the index: a part in at least one image


@dataclass
class ClassCheck:
    """What the files of one place say about the classes.

    `counts` are found against expected numbers; `faults` the files that are not what they should
    be; `all_zero` the masks without a labelled pixel, which are kept; `missing` the classes of the
    list that no file has; `differences` where masks and the text beside them disagree. `images` are
    those whose annotations were read, `of_images` those of the whole release (None: not a matter of
    images).
    """

    title: str
    n_classes: int | None = None
    paper_classes: int | None = None
    counts: list[Count] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    all_zero: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    images: int | None = None
    of_images: int | None = None

    @property
    def is_part(self) -> bool:
        """Whether the place holds a part of the release: its counts must then be smaller."""
        both = self.images is not None and self.of_images is not None
        return both and self.images < self.of_images  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        counts = [count.to_json() for count in self.counts]
        return {**vars(self), "is_part": self.is_part, "counts": counts}


def threaded(work: Callable[[T], Any], items: Iterable[T]) -> Iterator[Any]:
    """Map in threads, in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pa-check") as pool:
        yield from pool.map(work, items)


# -- index PNGs -------------------------------------------------------------------------------


def check_tree(label_set: LabelSet, splits: list[Images], progress: Progress) -> ClassCheck:
    """Read every mask of a tree: sizes, values, and which classes there are in which split."""
    check = ClassCheck(
        f"masks of {label_set.label}: {label_set.title}", len(label_set), label_set.paper_classes
    )
    _count_masks(check, label_set, splits, progress)
    return check


def check_challenge(label_set: LabelSet, splits: list[Images], progress: Progress) -> ClassCheck:
    """Which of the 59 objects the masks of ADEChallengeData2016 show (values 1 to 150).

    The 59 are the authors' choice among the 150, which no file of a release states: what can be
    recomputed is that each of them is there.
    """
    check = ClassCheck(
        f"masks of ADEChallengeData2016, as the {len(label_set)} classes of {label_set.label}",
        len(label_set),
        label_set.paper_classes,
    )
    values = [c.keys["ade150"] - 1 for c in label_set.classes]
    _count_masks(check, label_set, splits, progress, (ade20k.CHALLENGE_CLASSES, values))
    check.notes.append(
        "that the objects are these 59 no file here states: the list is the authors' own. Which of "
        "them have parts the full release shows (ADE20K, _seg.png and _parts_N.png): the same "
        "check with its --root"
    )
    check.notes.append(
        f"the masks have 150 classes. For {label_set.label}: pa datasets build "
        f"{label_set.dataset} --root {splits[0].root} --out DIR"
    )
    return check


def _count_masks(
    check: ClassCheck,
    label_set: LabelSet,
    splits: list[Images],
    progress: Progress,
    among: tuple[int, list[int]] | None = None,
) -> None:
    """Fill in the counts of index PNGs. `among` (M, indices) = the masks have M classes, of which
    those at the indices are the label set's, in its order."""
    total, chosen = among or (len(label_set), list(range(len(label_set))))
    n = len(label_set)
    found = {}
    for images in splits:
        pixels = np.zeros(n, np.int64)
        progress.start(f"{images.dataset}/{images.split}: masks", len(images.table), "masks")
        for path, all_counts in _mask_counts(images, total):
            progress.advance(1)
            if isinstance(all_counts, str):
                check.faults.append(all_counts)
                continue
            pixels += (counts := all_counts[chosen])
            if not counts.any():
                check.all_zero.append(path)
        progress.stop()
        found[images.split] = pixels > 0
        what = f"classes with a pixel in {images.split}"
        check.counts.append(Count(what, int(found[images.split].sum()), str(n)))
    if set(BOTH) <= set(found):
        both = found["train"] & found["val"]
        check.counts.append(Count("classes with a pixel in both splits", int(both.sum()), str(n)))
    there = np.logical_or.reduce(list(found.values()))
    check.missing = [c.name for c in label_set.classes if not there[c.id]]
    check.images = sum(len(images.table) for images in splits)
    check.of_images = sum(tree.EXPECTED[label_set.dataset].values())


def _mask_counts(images: Images, n: int) -> Iterator[tuple[str, Any]]:
    """(path of the mask, pixels per class, or the fault as text) for every image."""

    def one(row: dict[str, Any]) -> tuple[str, Any]:
        path = images.root / row["mask"]
        try:
            values = masks.read_index(path)
            if row["width"] is not None:
                masks.check_size(values, (row["width"], row["height"]), path)
            masks.check_range(values, n, path)
        except AnnotationError as error:
            return row["mask"], str(error)
        return row["mask"], masks.count(values, n)

    yield from threaded(one, images.table.select("mask", "width", "height").to_dicts())


# -- official releases ------------------------------------------------------------------------


def check_index(path: Path) -> ClassCheck:
    """The counts that ADE20K's index gives."""
    check = ClassCheck(f"ADE20K's index: {path}", counts=count_index(read_index(path)))
    check.notes.append(
        "the 59 objects of the paper cannot be derived from the index, which has no parent links: "
        "the list is the authors' own. Their 209 parts cannot be recovered with certainty."
    )
    return check


@dataclass(frozen=True)
class Seen:
    """(value of the object 0..59, level, class number of the part) → instances in one image; the
    objects 1..59 in it; in what its masks differ from the text beside them, None without one."""

    parts: Counter[tuple[int, int, int]]
    objects: frozenset[int]
    differences: tuple[str, ...] | None


def see_parts(image: Path) -> Seen | str:
    """The objects and parts of one image of the full ADE20K; a fault of its files as text."""
    seen: Counter[tuple[int, int, int]] = Counter()
    try:
        layer = ade20k.read_objects(image)
        owners = ade20k.owner_table()[layer.codes].astype(np.int64)
        levels = list(ade20k.read_parts(image, owners.shape))
        for level, (codes, instances) in enumerate(levels, 1):
            seen += _instances(owners, codes, instances, level)
        differences = ade20k.cross_check(image, layer, levels)
    except (AnnotationError, MismatchError) as error:
        return str(error)
    objects = frozenset(np.unique(owners[owners > 0]).tolist())
    if differences is not None:
        differences = tuple(f"{image.stem}: {line}" for line in differences)
    return Seen(seen, objects, differences)


def _instances(owners: Any, codes: Any, instances: Any, level: int) -> Counter[Any]:
    """Count the instances of one level; an instance belongs to the object of most of its pixels."""
    here = codes > 0
    keys = (codes[here].astype(np.int64) * 256 + instances[here]) * 64 + owners[here]
    values, pixels = np.unique(keys, return_counts=True)
    largest: dict[int, tuple[int, int]] = {}
    for key, n in zip(values.tolist(), pixels.tolist(), strict=True):
        instance, owner = divmod(key, 64)
        largest[instance] = max(largest.get(instance, (0, 0)), (n, owner))
    return Counter((owner, level, instance // 256) for instance, (_, owner) in largest.items())


def check_ade20k(root: Path, kind: str, progress: Progress, split: str | None = None) -> ClassCheck:
    """Go once through `_seg` and `_parts_N` of the full release: the parts, counted by every
    reading, or for the kind `ade20k-object` the objects alone; of one split, or of all there are.

    Raises `UnknownNameError` for a split that is not there.
    """
    label_set, objects = labels.load(kind), labels.load("ade20k-object")
    what = "which objects there are" if kind == "ade20k-object" else "which reading gives 209 parts"
    check = ClassCheck(f"ADE20K full in {root}: {what}", len(label_set), label_set.paper_classes)
    by_split: dict[str, Counter[tuple[int, int, int]]] = {}
    shown: dict[str, set[int]] = {}
    release = ade20k.find_release(root)
    if split is not None:
        if split not in release:
            raise UnknownNameError(f"split of ADE20K in {root}", split, release)
        release = {split: release[split]}
    kept = {name: ade20k.of_the_paper(name, paths) for name, paths in release.items()}
    for name, paths in kept.items():
        progress.start(f"ADE20K/{name}: parts", len(paths), "images")
        total: Counter[tuple[int, int, int]] = Counter()
        shown[name] = set()
        with_text = 0
        for seen in threaded(see_parts, paths):
            progress.advance(1)
            if isinstance(seen, str):
                check.faults.append(seen)
            else:
                total += seen.parts
                shown[name] |= seen.objects
                with_text += seen.differences is not None
                check.differences += seen.differences or ()
        progress.stop()
        by_split[name] = total
        check.notes.append(
            f"{name}: {len(paths):,} images; for {with_text:,} the .json or _atr.txt was compared"
        )
    check.counts = [
        Count(f"of the {len(objects)} objects, in {name}", len(there), str(len(objects)))
        for name, there in shown.items()
    ]
    check.images = sum(map(len, kept.values()))
    check.of_images = sum(ade20k.LARGEST.values())
    if kind == "ade20k-object":
        every = set.union(*shown.values())
        check.missing = [c.name for c in objects.classes if c.value not in every]
        with_parts = {owner for seen in by_split.values() for owner, _, _ in seen if owner}
        check.counts.append(Count("… that have a part", len(with_parts), str(len(objects))))
        return check
    check.counts += _ade_counts(by_split)
    if missing := set(BOTH) - set(by_split):
        check.notes.append(f"no images of {', '.join(sorted(missing))}: nothing is in both splits")
    numbers = set.intersection(*(_part_numbers(seen) for seen in by_split.values()))
    check.missing = [c.name for c in label_set.classes if c.keys["ade20k_index"][0] not in numbers]
    return check


def _part_numbers(seen: Counter[tuple[int, int, int]]) -> set[int]:
    """The class numbers of all parts, of any object and level."""
    return {part for _, _, part in seen}


def _ade_counts(by_split: dict[str, Counter[tuple[int, int, int]]]) -> Iterator[Count]:
    def both(keep: Callable[[int, int], bool]) -> int:
        """Part names in both splits with an occurrence that `keep(owner, level)` allows."""
        names = [{p for o, lv, p in by_split.get(s, ()) if keep(o, lv)} for s in BOTH]
        return len(set.intersection(*names))

    for split, expected in NAMES_IN.items():
        if split in by_split:
            n = len(_part_numbers(by_split[split]))
            yield Count(f"part names in {split}, any object and level", n, expected)
    yield Count("part names in both splits, any object and level", both(lambda o, lv: True), "231")
    yield Count("… of one of the 59 objects", both(lambda o, lv: o > 0), "201..217")
    yield Count("… at level 1 of any object", both(lambda o, lv: lv == 1), "209")
    pairs: Counter[tuple[int, int]] = Counter()
    for total in by_split.values():
        for (owner, level, part), n in total.items():
            if owner and level == 1:
                pairs[owner, part] += n
    often = sum(n >= PAIR_INSTANCES for n in pairs.values())
    yield Count(f"pairs at level 1 with {PAIR_INSTANCES} instances or more", often, "209")


def check_pascal(
    root: Path,
    progress: Progress,
    kind: str = "pascal-part",
    *,
    sizes: Mapping[str, Size] = EMPTY,
    names: Collection[str] | None = None,
) -> ClassCheck:
    """Read every .mat of Pascal-Part: which (class, part) there are, and which are not listed.

    For `pascal-object` the list is that of the objects: the classes that have parts. `sizes` are
    those of the images, by id: an annotation of another size is a fault. `names` are the images to
    look at, None = all.
    """
    mats = {
        name: path
        for name, path in pascal.find_mats(root).items()
        if names is None or name in names
    }
    parts, objects = labels.load("pascal-part"), labels.load("pascal-object")
    listed = labels.load(kind)
    check = ClassCheck(f"Pascal-Part in {root}", len(listed), listed.paper_classes)
    seen: Counter[tuple[int, str]] = Counter()
    progress.start("Pascal-Part: annotations", len(mats), "files")
    for found in threaded(partial(_see_mat, sizes), mats.values()):
        progress.advance(1)
        if isinstance(found, str):
            check.faults.append(found)
        else:
            seen += found
    progress.stop()
    known = pascal.part_values()
    with_parts = {voc_class for voc_class, _ in seen}
    check.images, check.of_images = len(mats), PASCAL_IMAGES
    check.counts = [
        Count("annotated images", len(mats), str(PASCAL_IMAGES)),
        Count("classes with parts", len(with_parts), str(len(objects))),
        Count("(class, part) pairs, numbered parts merged", len(seen), str(len(parts))),
        Count("… of these in the list", sum(pair in known for pair in seen), str(len(parts))),
    ]
    if kind == "pascal-object":
        check.counts = check.counts[:2]
        check.missing = [c.name for c in objects.classes if c.keys["voc_class"] not in with_parts]
        return check
    check.missing = [c.name for c in parts.classes if (c.keys["voc_class"], c.part) not in seen]
    check.notes = [f"not in the list: class {c}, part {p}" for c, p in seen if (c, p) not in known]
    return check


def _see_mat(sizes: Mapping[str, Size], path: Path) -> Counter[tuple[int, str]] | str:
    try:
        things = pascal.read_mat(path)
        if things and (size := sizes.get(path.stem)) is not None:
            masks.check_size(things[0].silhouette, size, path)
    except AnnotationError as error:
        return str(error)
    return Counter((t.voc_class, pascal.part_name(name)) for t in things for name, _ in t.parts)
