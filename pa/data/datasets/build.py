"""Building a segmentation dataset: from an official release to images beside index PNGs.

    <out>/img/<split>/<name>.jpg     the official image: a link to it, or a copy
    <out>/ann/<split>/<name>.png     8 bits: 0 = ignored, k = class k - 1
    <out>/build.json                 label list with its hash, rule, source; written first
    <out>/report-<split>.json        counts per class, all-zero masks, faults; written last

Every file is renamed into place, the mask before its image, so an image that is there has its mask;
the same command goes on where it was interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data import masks
from pa.data.datasets.tree import BUILD, BUILD_FORMAT, read_build
from pa.data.files import replacing, write_json
from pa.data.headers import read_header
from pa.data.labels import LabelSet
from pa.data.masks import Map
from pa.errors import AnnotationError, FingerprintError
from pa.progress import Progress, Silent


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
        return {
            "dataset": made.dataset,
            "list": made.list_name,
            "labels_sha256": made.sha256,
            "rule": self.rule,
        }


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
    the report. Raises `FingerprintError` where `out` was built with another list or rule,
    `MismatchError` where a release numbers its classes differently, `StorageError`.
    """
    progress = progress or Silent()
    _begin(plan, out)
    reports = []
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="pa-build") as pool:
        for split, items in plan.splits.items():
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


def _begin(plan: Plan, out: Path) -> None:
    there = read_build(out)
    recipe = plan.recipe()
    if there is None:
        fields = {"format": BUILD_FORMAT, **recipe, "source": str(plan.source)}
        write_json(out / BUILD, {**fields, "labels": plan.labels.provenance()})
        return
    other = [
        f"{name} {there.get(name)} → {new}"
        for name, new in recipe.items()
        if there.get(name) != new
    ]
    if other:
        raise FingerprintError(
            f"{out} was built differently (there → asked for): {'; '.join(other)}. Choose another "
            f"--out, or delete that folder."
        )


def _do(item: Item, split: str, plan: Plan, out: Path, copy: bool) -> _Done:
    mask_path = out / "ann" / split / f"{item.name}.png"
    try:
        header = read_header(item.image)
        if header.size is None:
            return _Done(None, fault=f"{item.image}: {header.fault}")
        size = header.size
        values = _there(mask_path, size)
        painted = values is None
        notes: tuple[str, ...] = ()
        if values is None:
            made = item.paint()
            values, notes = made.values, made.notes
            masks.check_size(values, size, item.image)
            masks.check_range(values, len(plan.labels), item.image)
            write_png(mask_path, values)
        place_image(item.image, out / "img" / split / f"{item.name}{item.image.suffix}", copy)
    except AnnotationError as error:
        return _Done(None, fault=str(error))
    return _Done(masks.count(values, len(plan.labels)), painted, notes)


def _there(path: Path, size: tuple[int, int]) -> Map | None:
    """The map that an earlier run wrote; None where there is none that can be read."""
    if not path.exists():
        return None
    try:
        values = masks.read_index(path)
        masks.check_size(values, size, path)
    except AnnotationError:
        return None
    return values


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


def write_png(path: Path, values: Map) -> None:
    """Write a map as an 8-bit grey PNG, whole or not at all."""
    with replacing(path) as partial:
        Image.fromarray(values).save(partial, format="PNG", optimize=False)


def place_image(source: Path, path: Path, copy: bool) -> None:
    """Put an image into the tree: a symbolic link to the official file, or a copy of it."""
    if path.exists() and path.stat().st_size == source.stat().st_size:
        return
    if copy:
        with replacing(path) as partial:
            shutil.copyfile(source, partial)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(source.absolute())
