"""Building a segmentation dataset: from an official release to images beside index PNGs.

    <out>/img/<split>/<name>.jpg     the official image: a link to it, or a copy
    <out>/ann/<split>/<name>.png     8 bits: 0 = ignored, k = class k - 1; notes in a text chunk
    <out>/build.json                 label list with its hash, rule, source; written first
    <out>/report-<split>.json        counts per class, all-zero masks, faults; written last

Every file is renamed into place, the mask before its image, so an image that is there has its mask;
the same command goes on where it was interrupted, and leaves what an undisturbed one leaves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.datasets.segmentation.tree import BUILD, BUILD_FORMAT, RECIPE, read_build
from pa.data.files import (
    PARTIAL_SUFFIX,
    partial_path,
    remove_stale,
    replacing,
    storage_errors,
    write_json,
)
from pa.data.headers import read_header
from pa.errors import AnnotationError, FingerprintError
from pa.progress import Progress, Silent

SHOWN = 60  # letters of a rule in a message
NOTES = "pa-notes"  # the text chunk of a mask that holds its notes, as a JSON list


@dataclass(frozen=True)
class Painted:
    """A map of pixel values (H, W), and what is odd about its annotation."""

    values: Map
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One image of a release, and how its map is made from the annotation."""

    name: str
    image: Path
    paint: Callable[[], Painted]


@dataclass(frozen=True)
class Plan:
    """What to build: the items of each split under one label set and one rule."""

    labels: LabelSet
    rule: str
    source: Path
    splits: dict[str, list[Item]]
    notes: tuple[str, ...] = ()

    def recipe(self) -> dict[str, Any]:
        """What the masks depend on: a tree is built with one recipe only."""
        made = self.labels
        values = (made.dataset, made.list_name, made.sha256, self.rule)
        return dict(zip(RECIPE, values, strict=True))


@dataclass
class SplitReport:
    """What was built of one split."""

    plan: Plan
    split: str
    images: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.int64]
    n_images: int = 0
    painted: int = 0
    all_zero: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def present(self) -> int:
        """Classes with at least one pixel."""
        return int(np.count_nonzero(self.images))

    def to_json(self) -> dict[str, Any]:
        labels = self.plan.labels
        return {
            "format": BUILD_FORMAT,
            "split": self.split,
            "source": str(self.plan.source),
            "rule": self.plan.rule,
            "labels": labels.provenance(),
            "images": self.n_images,
            "classes_present": self.present,
            "all_zero": self.all_zero,
            "faults": [{"name": name, "reason": reason} for name, reason in self.faults],
            "notes": [*self.plan.notes, *(f"{name}: {note}" for name, note in self.notes)],
            "classes": [
                {"id": c.id, "name": c.name, "images": int(n), "pixels": int(p)}
                for c, n, p in zip(labels.classes, self.images, self.pixels, strict=True)
            ],
        }


@dataclass(frozen=True)
class _Done:
    counts: npt.NDArray[np.int64] | None
    painted: bool = False
    notes: tuple[str, ...] = ()
    fault: str | None = None


def build(
    plan: Plan,
    out: Path,
    *,
    copy: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[SplitReport]:
    """Write the images and index PNGs of every split of the plan; returns one report per split.

    What is there is not painted again. An item whose annotation is faulty is left out, and named in
    the report. Raises `FingerprintError` where `out` was built with another list or rule, or from
    another release,
    `MismatchError` where a release numbers its classes differently, `AnnotationError` where two
    images of a split have one name, `StorageError`.
    """
    progress = progress or Silent()
    for split, items in plan.splits.items():
        _require_names(split, items)
    _begin(plan, out)
    reports = []
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="pa-build") as pool:
        for split, items in plan.splits.items():
            _tidy(out / "ann" / split, out / "img" / split)
            progress.start(f"{plan.labels.label}/{split}", len(items), "images")
            try:
                done = pool.map(lambda item: _do(item, split, plan, out, copy), items)  # noqa: B023
                report = _collect(plan, split, items, done, progress)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                progress.stop()
            write_json(out / f"report-{split}.json", report.to_json())
            reports.append(report)
    return reports


def _require_names(split: str, items: Sequence[Item]) -> None:
    """Raise `AnnotationError` where two images would become one file."""
    name, n = Counter(item.name for item in items).most_common(1)[0] if items else ("", 0)
    if n > 1:
        first, second, *_ = (str(item.image) for item in items if item.name == name)
        raise AnnotationError(
            f"split {split} has {n} images of the name {name}: {first} and {second}. Expected: one "
            f"release, each image once. Move one of them away."
        )


def _begin(plan: Plan, out: Path) -> None:
    """Write build.json, or compare with the one that is there: the first of two builders wins."""
    recipe = plan.recipe()
    # In this order: a builder that has masks has written build.json before them.
    if (out / "ann").exists() and not (out / BUILD).exists():
        raise FingerprintError(
            f"{out} holds ann/ and no {BUILD}: another hand made its masks. Choose another --out."
        )
    if not (out / BUILD).exists():
        fields = {"format": BUILD_FORMAT, **recipe, "source": str(plan.source.absolute())}
        write_json(out / BUILD, {**fields, "labels": plan.labels.provenance()}, once=True)
    there = read_build(out) or {}
    other = [
        f"{name} {_difference(str(there.get(name)), new)}"
        for name, new in recipe.items()
        if there.get(name) != new
    ]
    if other:
        raise FingerprintError(
            f"{out} was built differently (there → asked for): {'; '.join(other)}. Choose another "
            f"--out, or delete that folder."
        )
    source = Path(str(there.get("source", plan.source)))
    # One that is gone has moved, or lies elsewhere on this host.
    if source.exists() and not source.samefile(plan.source):
        raise FingerprintError(
            f"{out} was built from {source}, not from {plan.source}: masks of two releases must "
            f"not be mixed. Choose another --out, or delete that folder."
        )
    _tidy(out)


def _difference(before: str, after: str) -> str:
    """Two texts from shortly before the place where they differ, each cut to `SHOWN` letters."""
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
    start = max(0, len(list(equal)) - SHOWN // 4)

    def cut(text: str) -> str:
        end = start + SHOWN
        return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")

    return f"{cut(before)} → {cut(after)}"


def _tidy(*folders: Path) -> None:
    """Remove the partial files that killed builders of this host left."""
    for folder in folders:
        partials = folder.glob(f"*{PARTIAL_SUFFIX}")
        for name in {partial.name.rsplit(".", 2)[0] for partial in partials}:
            remove_stale(folder, name)


def _do(item: Item, split: str, plan: Plan, out: Path, copy: bool) -> _Done:
    mask_path = out / "ann" / split / f"{item.name}.png"
    n = len(plan.labels)
    try:
        header = read_header(item.image)
        if header.size is None:
            return _Done(None, fault=f"{item.image}: {header.fault}")
        there = _there(mask_path, header.size, n)
        made = there or item.paint()
        if there is None:
            masks.check_size(made.values, header.size, item.image)
            masks.check_range(made.values, n, item.image)
            write_png(mask_path, made)
        place_image(item.image, out / "img" / split / f"{item.name}{item.image.suffix}", copy)
    except AnnotationError as error:
        return _Done(None, fault=str(error))
    return _Done(masks.count(made.values, n), there is None, made.notes)


def _there(path: Path, size: tuple[int, int], n_classes: int) -> Painted | None:
    """The map that an earlier run wrote; None where there is none that could be its."""
    if not path.exists():
        return None
    try:
        image = masks.open_png(path)
        values = masks.index_of(image, path)
        masks.check_size(values, size, path)
        masks.check_range(values, n_classes, path)
        return Painted(values, tuple(json.loads(image.info.get(NOTES, "[]"))))
    except (AnnotationError, ValueError, TypeError):
        return None


def _collect(
    plan: Plan, split: str, items: Sequence[Item], done: Any, progress: Progress
) -> SplitReport:
    n = len(plan.labels)
    report = SplitReport(plan, split, np.zeros(n, np.int64), np.zeros(n, np.int64))
    for item, one in zip(items, done, strict=True):
        progress.advance(1)
        report.notes += [(item.name, note) for note in one.notes]
        if one.counts is None:
            report.faults.append((item.name, one.fault))
            continue
        report.n_images += 1
        report.painted += one.painted
        report.pixels += one.counts
        report.images += one.counts > 0
        if not one.counts.any():
            report.all_zero.append(item.name)
    return report


def write_png(path: Path, painted: Painted) -> None:
    """Write a map as an 8-bit grey PNG with its notes, whole or not at all."""
    text = PngInfo()
    if painted.notes:
        text.add_itxt(NOTES, json.dumps(painted.notes, ensure_ascii=False))
    with replacing(path) as partial:
        Image.fromarray(painted.values).save(partial, format="PNG", optimize=False, pnginfo=text)


def place_image(source: Path, path: Path, copy: bool) -> None:
    """Put an image into the tree: a symbolic link to the official file, or a copy of it.

    Several builders may do so at once: each puts a whole file or link in place of what is there.
    """
    if _is_placed(source, path, copy):
        return
    if copy:
        with replacing(path) as partial:
            shutil.copyfile(source, partial)
        return
    link = partial_path(path)
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            while not _is_placed(source, path, copy):
                link.symlink_to(source.absolute())
                # Another builder may have removed the link as one that was left behind.
                with contextlib.suppress(FileNotFoundError):
                    link.replace(path)
    finally:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)


def _is_placed(source: Path, path: Path, copy: bool) -> bool:
    """Whether an earlier run put the image there; a copy serves where a link was asked for."""
    if path.is_symlink():
        return not copy and path.readlink() == source.absolute()
    return path.is_file() and path.stat().st_size == source.stat().st_size
