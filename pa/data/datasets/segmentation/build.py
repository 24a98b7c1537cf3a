"""Build a segmentation dataset: from an official release to images with index PNGs.

    <out>/img/<split>/<name>.jpg     the official image: a link to it, or a copy
    <out>/ann/<split>/<name>.png     8 bits: 0 = ignored, k = class k - 1; notes in a text chunk
    <out>/build.json                 label list with its hash, rule, source; written first
    <out>/report-<split>.json        counts per class, all-zero masks, faults; written last

Every file is renamed into place, the mask before its image, so every image in the tree has its
mask. The same command resumes an interrupted build; the result equals an undisturbed one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.datasets.segmentation.tree import BUILD, BUILD_FORMAT, RECIPE, read_build
from pa.data.files import (
    partial_path,
    remove_stale,
    replacing,
    storage_errors,
    write_json,
)
from pa.data.images import open_image, read_header
from pa.errors import AnnotationError, FingerprintError, ImageError
from pa.progress import Progress, Silent, track

EXCERPT = 60  # characters of a rule in a message
NOTES = "pa-notes"  # text chunk of a mask that holds its notes, a JSON list
MAX_THREADS = 8  # by default: more saturate a disk


@dataclass(frozen=True)
class LabelMap:
    """A map of pixel values (H, W), and notes about its annotation."""

    values: Map  # 0 = ignored, k = class k - 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One image of a release, and the function that draws its label map."""

    name: str
    image: Path
    rasterize: Callable[[], LabelMap]


@dataclass(frozen=True)
class Release:
    """An official release with label maps: how it is planned, and what messages say of it."""

    plan: Callable[[str, Path, Path | None, str | None], BuildPlan]  # dataset, root, images, rule
    images: Mapping[str, int]  # number by split, as stated by the paper or known from the release
    layout: str = ""  # of the release, if it differs from all trees that can be read
    readable: str = ""  # official layout that can be read without a build
    rules: tuple[str, ...] = ()  # the first is the default
    windows: tuple[int, ...] = ()  # the first fields of `WindowsView`, if not those of ADE20K


@dataclass(frozen=True)
class BuildPlan:
    """What to build: the items of each split under one label set and one rule."""

    labels: LabelSet
    rule: str
    source: Path
    splits: dict[str, list[Item]]
    notes: tuple[str, ...] = ()

    def recipe(self) -> dict[str, str]:
        """Return what the masks depend on; a tree is built with one recipe only."""
        values = (self.labels.dataset, self.labels.list_name, self.labels.sha256, self.rule)
        return dict(zip(RECIPE, values, strict=True))


class _Outcome(NamedTuple):
    """What was built of one image: `counts` (C,) are the pixels per class."""

    counts: npt.NDArray[np.int64]
    is_new: bool  # rasterized in this run
    notes: tuple[str, ...]


class SplitReport:
    """Outcome for one split; `images` and `pixels` (C,) count every class."""

    def __init__(self, plan: BuildPlan, split: str) -> None:
        self.plan = plan
        self.split = split
        self.images = np.zeros(len(plan.labels), np.int64)  # (C,)
        self.pixels = np.zeros(len(plan.labels), np.int64)  # (C,)
        self.n_images = 0
        self.n_rasterized = 0  # in this run; the others were built before
        self.all_zero: list[str] = []  # names without a labelled pixel
        self.faults: list[tuple[str, str]] = []  # name, reason
        self.notes: list[tuple[str, str]] = []

    @property
    def present(self) -> int:
        """Classes with at least one pixel."""
        return int(np.count_nonzero(self.images))

    def add(self, name: str, outcome: _Outcome | str) -> None:
        """Count the outcome for one image, or list its fault."""
        if isinstance(outcome, str):
            self.faults.append((name, outcome))
            return
        self.notes += [(name, note) for note in outcome.notes]
        self.n_images += 1
        self.n_rasterized += outcome.is_new
        self.pixels += outcome.counts
        self.images += outcome.counts > 0
        if not outcome.counts.any():
            self.all_zero.append(name)

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": BUILD_FORMAT,
            "split": self.split,
            "source": str(plan.source),
            "rule": plan.rule,
            "labels": plan.labels.provenance(),
            "images": self.n_images,
            "classes_present": self.present,
            "all_zero": self.all_zero,
            "faults": [{"name": name, "reason": reason} for name, reason in self.faults],
            "notes": [*plan.notes, *(f"{name}: {note}" for name, note in self.notes)],
            "classes": [
                {"id": c.id, "name": c.name, "images": int(n), "pixels": int(p)}
                for c, n, p in zip(plan.labels.classes, self.images, self.pixels, strict=True)
            ],
        }


def build(
    plan: BuildPlan,
    out: Path,
    *,
    copy: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[SplitReport]:
    """Write the images and index PNGs of every split of a plan below `out`; return their reports.

    Masks that exist are kept. Images with a faulty annotation are skipped and listed. Images are
    linked, or copied with `copy`; `workers` is the number of threads, 0 selects the default. Raise
    `FingerprintError` if `out` was built with another list or rule, or from another release;
    `MismatchError` if the release numbers its classes differently; `AnnotationError` if two images
    of a split have the same name; `StorageError` if a file cannot be written.
    """
    progress = progress or Silent()
    for split, items in plan.splits.items():
        name, n = Counter(item.name for item in items).most_common(1)[0] if items else ("", 0)
        if n > 1:  # both would become one file
            first, second, *_ = (str(item.image) for item in items if item.name == name)
            raise AnnotationError(
                f"split {split} has {n} images named {name}: {first} and {second}. Expected: one "
                f"release, each image once. Move one of them away."
            )
    _begin(plan, out)
    reports = []
    threads = workers or min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="pa-build") as pool:
        for split, items in plan.splits.items():
            remove_stale(out / "ann" / split)
            remove_stale(out / "img" / split)
            report = SplitReport(plan, split)
            built = pool.map(lambda item: _build_item(item, split, plan, out, copy), items)  # noqa: B023
            title = f"{plan.labels.dataset}/{split}"
            pairs = zip(items, built, strict=True)
            try:
                for item, outcome in track(progress, pairs, title, len(items), "images"):
                    report.add(item.name, outcome)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            write_json(out / f"report-{split}.json", report.to_json())
            reports.append(report)
    return reports


def _begin(plan: BuildPlan, out: Path) -> None:
    """Write build.json, or compare it with the existing one: the first of two builders wins."""
    recipe = plan.recipe()
    # Test in this order: another builder writes build.json before its first mask.
    if (out / "ann").exists() and not (out / BUILD).exists():
        raise FingerprintError(
            f"{out} holds ann/ but no {BUILD}: it was not built by pa. Choose another --out."
        )
    if not (out / BUILD).exists():
        fields = {"format": BUILD_FORMAT, **recipe, "source": str(plan.source.absolute())}
        write_json(out / BUILD, {**fields, "labels": plan.labels.provenance()}, once=True)
    existing = read_build(out) or {}
    differing = [
        f"{name} {_difference(str(existing.get(name)), value)}"
        for name, value in recipe.items()
        if existing.get(name) != value
    ]
    if differing:
        raise FingerprintError(
            f"{out} was built differently (existing → requested): {'; '.join(differing)}. Choose "
            f"another --out, or delete that folder."
        )
    source = Path(str(existing.get("source", plan.source)))
    # A source that no longer exists was moved, or has another path on this host.
    if source.exists() and not source.samefile(plan.source):
        raise FingerprintError(
            f"{out} was built from {source}, not from {plan.source}: masks of two releases must "
            f"not be mixed. Choose another --out, or delete that folder."
        )
    remove_stale(out)


def _difference(before: str, after: str) -> str:
    """Show two texts from shortly before their first difference, each cut to `EXCERPT`."""
    equal = os.path.commonprefix([before, after])  # noqa: RUF071 - characters, not folders
    start = max(0, len(equal) - EXCERPT // 4)
    end = start + EXCERPT
    cut = [
        ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")
        for text in (before, after)
    ]
    return " → ".join(cut)


def _build_item(item: Item, split: str, plan: BuildPlan, out: Path, copy: bool) -> _Outcome | str:
    """Write the mask and the image of one item, or return its fault."""
    mask_path = out / "ann" / split / f"{item.name}.png"
    n = len(plan.labels)
    try:
        header = read_header(item.image)
        if header.size is None:
            return f"{item.image}: {header.fault}"
        # The mask before its image: every image in the tree has its mask, also after a kill.
        existing = _read_existing(mask_path, header.size, n)
        label_map = existing or item.rasterize()
        if existing is None:
            masks.check_size(label_map.values, header.size, item.image)
            masks.check_range(label_map.values, n, item.image)
            write_png(mask_path, label_map)
        place_image(item.image, out / "img" / split / f"{item.name}{item.image.suffix}", copy)
    except AnnotationError as error:
        return str(error)
    return _Outcome(masks.count(label_map.values, n), existing is None, label_map.notes)


def _read_existing(path: Path, size: tuple[int, int], n_classes: int) -> LabelMap | None:
    """Read the map that an earlier run wrote; None if it is missing or of another origin."""
    if not path.exists():
        return None
    try:
        values = masks.read_values(path, n_classes, size)
        with open_image(path, path) as image:
            return LabelMap(values, tuple(json.loads(image.info.get(NOTES, "[]"))))
    except (AnnotationError, ImageError, ValueError, TypeError):
        return None


def write_png(path: Path, label_map: LabelMap) -> None:
    """Write a map as an 8-bit grey PNG with its notes, atomically."""
    text = PngInfo()
    if label_map.notes:
        text.add_itxt(NOTES, json.dumps(label_map.notes, ensure_ascii=False))
    with replacing(path) as partial:
        Image.fromarray(label_map.values).save(partial, format="PNG", optimize=False, pnginfo=text)


def place_image(source: Path, path: Path, copy: bool) -> None:
    """Put an image into the tree: a symbolic link to the official file, or a copy of it."""
    # Several builders may do so at once: each replaces the file or link atomically.
    if _is_placed(source, path, copy):
        return
    if copy:
        with replacing(path) as partial:
            shutil.copyfile(source, partial)
        return
    link = partial_path(path)  # renamed into place, as all files
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            while not _is_placed(source, path, copy):
                link.symlink_to(source.absolute())
                # Another builder may have removed the link as a stale partial file.
                with contextlib.suppress(FileNotFoundError):
                    link.replace(path)
    finally:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)


def _is_placed(source: Path, path: Path, copy: bool) -> bool:
    """Return whether an earlier run placed the image; a copy satisfies a request for a link."""
    if path.is_symlink():
        return not copy and path.readlink() == source.absolute()
    return path.is_file() and path.stat().st_size == source.stat().st_size
