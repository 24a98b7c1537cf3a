"""Class counts of index PNGs: of a tree in the layout of `pa`, and of ADEChallengeData2016."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pa.data.datasets.segmentation import ade20k, masks
from pa.data.datasets.segmentation import tree as trees
from pa.data.datasets.segmentation.ade20k_index import Count
from pa.data.datasets.segmentation.class_check.found import BOTH, ClassCheck, threaded
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.schema import Images
from pa.errors import AnnotationError
from pa.progress import Progress


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
    check.of_images = sum(trees.EXPECTED[label_set.dataset].values())


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
