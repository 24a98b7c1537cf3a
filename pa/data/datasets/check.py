"""Compare a dataset on disk with its official release: images, headers, parts and masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.datasets import Expected, Kind
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.datasets.segmentation.releases import RELEASES
from pa.data.images import Header, read_headers
from pa.data.schema import Boxes, Images
from pa.data.views.part_rows import PartCounts
from pa.data.views.parts import PROTOCOLS
from pa.errors import AnnotationError, MissingError
from pa.progress import Progress, track

MAX_THREADS = 8  # decoding PNGs scales no further


@dataclass(frozen=True)
class SplitCheck:
    """The state of one split; the parts are by protocol."""

    split: str
    images: int
    classes: int
    expected: Expected | None
    missing: list[str]  # listed files that do not exist
    unreadable: list[tuple[str, str]]  # files whose header Pillow cannot read, and the reason
    # Files of another size than annotated: they are another image, or were annotated before the
    # EXIF rotation.
    odd_sizes: list[tuple[str, str]]
    turned: int | None  # images that EXIF rotates; None: headers were not read
    remarks: list[str]
    parts: Mapping[str, PartCounts]  # of view `parts`
    no_parts: Mapping[str, str]  # the reason for having no row

    @property
    def is_whole(self) -> bool:
        """Whether every listed file can be read and has the annotated size."""
        return not self.missing and not self.unreadable and not self.odd_sizes

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if "parts" not in name}
        return {
            **fields,
            "expected": asdict(self.expected) if self.expected else None,
            "parts": {name: counts.to_json() for name, counts in self.parts.items()},
            "no_parts": dict(self.no_parts),
        }


def check_split(images: Images, kind: Kind, headers: bool, progress: Progress) -> SplitCheck:
    """Count one split and, with `headers`, read the header of each of its images."""
    table = images.table
    exists = table["file_bytes"] >= 0  # -1 marks a listed file that does not exist
    paths = table["path"].filter(exists).to_list()
    by_path = _headers(images, paths, progress) if headers else {}
    parts, no_parts = {}, {}
    if images.read_annotations is not None:
        is_boxes = isinstance(images.annotations(), Boxes)
        for name in ("boxes",) if is_boxes else ("paper", "released"):
            try:
                parts[name] = PROTOCOLS[name].select(images).counts
            except MissingError as error:  # the sample may be small, or the keypoints wrong
                no_parts[name] = str(error)
    return SplitCheck(
        split=images.split,
        images=len(table),
        classes=table["label"].drop_nulls().n_unique(),
        expected=kind.expected.get(images.split),
        missing=table["path"].filter(~exists).to_list(),
        unreadable=[(path, h.fault) for path, h in by_path.items() if h.fault is not None],
        odd_sizes=_odd_sizes(images, by_path) if by_path else [],
        turned=sum(header.turned for header in by_path.values()) if headers else None,
        remarks=kind.remarks(table) if kind.remarks else [],
        parts=parts,
        no_parts=no_parts,
    )


def check_sizes(images: Images, paths: list[str], progress: Progress) -> list[tuple[str, str]]:
    """Return those of `paths` whose header has another size than annotated, with both sizes."""
    sized = _annotated_sizes(images)
    asked = [path for path in paths if path in sized]
    return _odd_sizes(images, _headers(images, asked, progress)) if asked else []


def _headers(images: Images, paths: list[str], progress: Progress) -> dict[str, Header]:
    title = f"{images.dataset}/{images.split}: headers"
    headers = track(progress, read_headers(images.root, paths), title, len(paths), "images")
    return dict(zip(paths, headers, strict=True))


def _annotated_sizes(images: Images) -> dict[str, tuple[int, int]]:
    """Return width and height by path, if the keypoints have them."""
    if images.read_annotations is None or isinstance(annotations := images.annotations(), Boxes):
        return {}
    sized = annotations.table.select("path", "width", "height").drop_nulls().unique("path")
    return {path: (width, height) for path, width, height in sized.iter_rows()}


def _odd_sizes(images: Images, headers: Mapping[str, Header]) -> list[tuple[str, str]]:
    annotated, odd = _annotated_sizes(images), []
    for path, header in headers.items():
        expected = annotated.get(path, header.size)
        if header.size is not None and expected is not None and expected != header.size:
            turned = ", after its EXIF rotation" if header.turned else ""
            size, other = ("x".join(map(str, pair)) for pair in (header.size, expected))
            odd.append((path, f"{size}{turned}, annotated as {other}"))
    return odd


# -- masks -------------------------------------------------------------------------------------


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
            counted = pool.map(lambda row: _count_mask(images, row, n), rows)  # noqa: B023
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


def _count_mask(images: Images, row: dict[str, Any], n_classes: int) -> npt.NDArray[np.int64] | str:
    """Return the pixels per class (C,) of a mask, or its fault as text."""
    # The check of images reports one that cannot be read, whose size is null.
    size = None if row["width"] is None else (row["width"], row["height"])
    try:
        values = masks.read_values(images.root / row["mask"], n_classes, size)
    except AnnotationError as error:
        return str(error)
    return masks.count(values, n_classes)
