"""Check the masks of a tree: sizes, values, and the classes present in each split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.datasets.segmentation.releases import RELEASES
from pa.data.schema import Images
from pa.errors import AnnotationError
from pa.progress import Progress, track

MAX_THREADS = 8  # decoding PNGs scales no further


@dataclass(frozen=True)
class ClassCount:
    """Number of classes found in the masks, and in the label list."""

    what: str
    counted: int
    expected: int

    def to_json(self) -> dict[str, Any]:
        agrees = self.counted == self.expected
        numbers = {"found": self.counted, "expected": str(self.expected)}
        return {"what": self.what, **numbers, "agrees": agrees}


@dataclass
class MaskCheck:
    """Outcome of reading every mask of a tree.

    `faults` are masks that cannot be used; `all_zero` masks without a labelled pixel, which are
    kept; `missing` classes that no mask shows. `n_release` is the number of images in the full
    release.
    """

    label_set: LabelSet
    n_images: int
    n_release: int
    counts: list[ClassCount] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    all_zero: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_subset(self) -> bool:
        """Whether the tree holds a part of the release: its counts may then be smaller."""
        return self.n_images < self.n_release

    def to_json(self) -> dict[str, Any]:
        return {
            "title": f"masks of {self.label_set.dataset}: {self.label_set.title}",
            "n_classes": len(self.label_set),
            "paper_classes": self.label_set.paper_classes,
            "counts": [count.to_json() for count in self.counts],
            "missing": self.missing,
            "all_zero": self.all_zero,
            "faults": self.faults,
            "images": self.n_images,
            "of_images": self.n_release,
            "is_part": self.is_subset,
        }


def check_masks(label_set: LabelSet, splits: Sequence[Images], progress: Progress) -> MaskCheck:
    """Read every mask of the splits of a tree."""
    n = len(label_set)
    n_images = sum(len(images.table) for images in splits)
    check = MaskCheck(label_set, n_images, sum(RELEASES[label_set.dataset].images.values()))
    present: dict[str, npt.NDArray[np.bool_]] = {}  # split → (C,)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="pa-check") as pool:
        for images in splits:
            rows = images.table.select("mask", "width", "height").to_dicts()
            pixels = np.zeros(n, np.int64)
            title = f"{images.dataset}/{images.split}: masks"
            counted = pool.map(lambda row: _count(images, row, n), rows)  # noqa: B023
            pairs = zip(rows, counted, strict=True)
            for row, counts in track(progress, pairs, title, len(rows), "masks"):
                if isinstance(counts, str):
                    check.faults.append(counts)
                    continue
                pixels += counts  # (C,)
                if not counts.any():
                    check.all_zero.append(row["mask"])
            present[images.split] = pixels > 0
            title = f"classes with a pixel in {images.split}"
            check.counts.append(ClassCount(title, int(present[images.split].sum()), n))
    if {"train", "val"} <= set(present):
        both = int((present["train"] & present["val"]).sum())
        check.counts.append(ClassCount("classes with a pixel in both splits", both, n))
    anywhere = np.logical_or.reduce(list(present.values()))  # (C,)
    check.missing = [c.name for c in label_set.classes if not anywhere[c.id]]
    return check


def _count(images: Images, row: dict[str, Any], n_classes: int) -> npt.NDArray[np.int64] | str:
    """Return the pixels per class (C,) of a mask, or its fault as text."""
    # The check of images reports one that cannot be read, whose size is null.
    size = None if row["width"] is None else (row["width"], row["height"])
    try:
        values = masks.read_values(images.root / row["mask"], n_classes, size)
    except AnnotationError as error:
        return str(error)
    return masks.count(values, n_classes)
