"""Class counts of the full ADE20K: of its index, and of the images themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pa.data.datasets.segmentation import ade20k, labels
from pa.data.datasets.segmentation.ade20k_index import Count, count_index, read_index
from pa.data.datasets.segmentation.class_check.found import BOTH, ClassCheck, threaded
from pa.errors import AnnotationError, MismatchError, UnknownNameError
from pa.progress import Progress

PAIR_INSTANCES = 50  # from which an (object, part) pair is in the list pairs50
# (value of the object 0..59, level, class number of the part) → instances
Parts = Counter[tuple[int, int, int]]
NAMES_IN = {"train": "464", "val": "243"}  # by the index: a part in at least one image


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
    """The parts in one image; the objects 1..59 in it; in what its masks differ from the text
    beside them, None without one."""

    parts: Parts
    objects: frozenset[int]
    differences: tuple[str, ...] | None


def see_parts(image: Path) -> Seen | str:
    """The objects and parts of one image of the full ADE20K; a fault of its files as text."""
    seen: Parts = Counter()
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
    by_split: dict[str, Parts] = {}
    shown: dict[str, set[int]] = {}
    check.images = 0
    for name, paths in _splits(root, split).items():
        by_split[name], shown[name] = _see_split(check, name, paths, progress)
        check.images += len(paths)
    check.of_images = sum(ade20k.LARGEST.values())
    check.counts = [
        Count(f"of the {len(objects)} objects, in {name}", len(there), str(len(objects)))
        for name, there in shown.items()
    ]
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


def _splits(root: Path, split: str | None) -> dict[str, list[Path]]:
    """The images of the release that the paper uses, by split."""
    release = ade20k.find_release(root)
    if split is not None:
        if split not in release:
            raise UnknownNameError(f"split of ADE20K in {root}", split, release)
        release = {split: release[split]}
    return {name: ade20k.of_the_paper(name, paths) for name, paths in release.items()}


def _see_split(
    check: ClassCheck, name: str, paths: list[Path], progress: Progress
) -> tuple[Parts, set[int]]:
    """The parts and objects of a split; faults, differences and a note go into the check."""
    parts: Parts = Counter()
    objects: set[int] = set()
    with_text = 0
    progress.start(f"ADE20K/{name}: parts", len(paths), "images")
    for seen in threaded(see_parts, paths):
        progress.advance(1)
        if isinstance(seen, str):
            check.faults.append(seen)
        else:
            parts += seen.parts
            objects |= seen.objects
            with_text += seen.differences is not None
            check.differences += seen.differences or ()
    progress.stop()
    check.notes.append(
        f"{name}: {len(paths):,} images; for {with_text:,} the .json or _atr.txt was compared"
    )
    return parts, objects


def _part_numbers(seen: Parts) -> set[int]:
    """The class numbers of all parts, of any object and level."""
    return {part for _, _, part in seen}


def _ade_counts(by_split: dict[str, Parts]) -> Iterator[Count]:
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
