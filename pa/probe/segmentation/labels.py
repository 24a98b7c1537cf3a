"""Label maps of a store's images, the windows of a store, and the labels in the training windows.

Shapes: C classes, n windows, S side of a window, H and W of an image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.data.store.source import FeatureSource
from pa.data.views.windows import Window, cut_mask, windows_for, windows_in
from pa.errors import MismatchError, MissingError, UsageError
from pa.progress import Progress

IMAGE_COLUMNS = ("path", "mask", "width", "height", "file_bytes")  # what a label map needs


@dataclass(frozen=True)
class LabelMaps:
    """One label set, and the index PNGs (0 = ignored, k = class k - 1) of some images.

    Attributes
    ----------
    root : Path
        Root of the masks. Their paths are those in the store's rows or, if `by_image`, the paths
        of the images with the suffix .png.
    images : Path, optional
        Root of the images, to check that they are the ones that were encoded. They are also
        checked below `root` unless `by_image`.
    provenance : dict
        Recorded in results.
    """

    name: str
    classes: tuple[str, ...]
    root: Path
    by_image: bool = False
    images: Path | None = None
    provenance: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) < IGNORED:
            raise UsageError(
                f"label set {self.name} has {len(self.classes)} classes. Expected 1 to "
                f"{IGNORED - 1}: label maps have 8 bits, of which {IGNORED} means ignored."
            )

    def file(self, image: dict[str, Any]) -> Path:
        """Return the label map of an image. Raise `MissingError` for a store without masks."""
        if self.by_image:
            return (self.root / str(image["path"])).with_suffix(".png")
        if image.get("mask") is None:
            raise MissingError(
                f"the store names no label map for {image['path']}: its dataset has none. Give a "
                f"folder of label maps: --masks DIR --names FILE."
            )
        return self.root / str(image["mask"])

    def read(self, image: dict[str, Any]) -> Map:
        """Read the class map (H, W), uint8, 255 = ignored, of an image.

        `image` is a row of a store, with path, mask, width, height and file_bytes. Raise
        `AnnotationError` for a map that is missing, damaged, of another size, or of unknown
        classes; `MismatchError` for an image that is not the one that was encoded.
        """
        roots = (None if self.by_image else self.root, self.images)
        for folder in dict.fromkeys(root for root in roots if root is not None):
            _check_image(folder / str(image["path"]), image["file_bytes"])
        size = (image["width"], image["height"])
        return masks.read(self.file(image), len(self.classes), size)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "classes": len(self.classes), **self.provenance}


def folder_maps(folder: Path, names: Path, images: Path) -> LabelMaps:
    """Return the label set of a folder of index PNGs and a file of class names.

    Raise `MissingError` for a missing folder or file, `UsageError` as `read_names`.
    """
    if not folder.is_dir():
        raise MissingError(f"--masks {folder} is not a folder.")
    classes = read_names(names)
    digest = hashlib.sha256()  # other label maps are another result
    for file in sorted(folder.rglob("*.png")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    sha256 = hashlib.sha256("\n".join(classes).encode()).hexdigest()
    provenance = {"sha256": sha256, "masks": digest.hexdigest()}
    root = folder.expanduser().absolute()
    return LabelMaps(names.stem, classes, root, True, images, provenance)


def read_names(file: Path) -> tuple[str, ...]:
    """Read class names, one per line: line k names class k of the masks.

    Raise `UsageError` for an empty line, which would renumber every class below it, and for a
    repeated name.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingError(f"--names {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--names {file} is not a UTF-8 text: {error.reason}.") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            raise UsageError(
                f"--names {file}: line {number} is empty. Line k names the class that is k in the "
                f"masks: write a name there."
            )
        if line in seen:
            raise UsageError(
                f"--names {file}: lines {seen[line]} and {number} are both {line!r}. Expected a "
                f"different name for each class."
            )
        seen[line] = number
    return tuple(lines)


def _check_image(path: Path, file_bytes: int) -> None:
    """Raise `MismatchError` if an image exists and is not the one that was encoded."""
    try:
        size = path.stat().st_size
    except OSError:
        return
    if file_bytes not in (-1, size):  # -1: the file was missing at the extraction
        raise MismatchError(
            f"{path} has {size} bytes, but the features were computed from a file of {file_bytes}: "
            f"masks and features would be of different images. Extract again, or give the folder "
            f"that was encoded with --root."
        )


@dataclass(frozen=True, eq=False)
class WindowRows:
    """Rows of a store of view `windows`, grouped by image.

    `rows` (n,) are row ids in ascending order; `windows` their windows; `image_of` (n,) the index
    of each in `images`. Rows of images that could not be decoded are skipped.
    """

    store: FeatureSource
    rows: npt.NDArray[np.int64]  # (n,)
    windows: list[Window]
    image_of: npt.NDArray[np.int64]  # (n,)
    images: list[dict[str, Any]]  # one row per image, with IMAGE_COLUMNS

    @classmethod
    def of(cls, store: FeatureSource, paths: set[str] | None = None) -> WindowRows:
        """Return the rows of a store, optionally only those of the images `paths`.

        Raise `UsageError` for a store of another view, or without any such row.
        """
        if store.view != "windows":
            raise UsageError(
                f"{store.title} is of view {store.view}. Segmentation reads view windows:\n"
                f"  {store.command_for(view=windows_for(store.spec.dataset))}"
            )
        table = store.rows.filter(pl.Series(store.valid))
        if paths is not None:
            table = table.filter(pl.col("path").is_in(sorted(paths)))
        if table.is_empty():
            raise UsageError(f"{store.title}: it has no usable window.")
        columns = [name for name in IMAGE_COLUMNS if name in table.columns]
        first = table.group_by("image", maintain_order=True).first()
        # Image ids of a subset have gaps: number the images that are left.
        _, image_of = np.unique(table["image"].to_numpy(), return_inverse=True)
        return cls(
            store,
            table["row"].to_numpy(),
            windows_in(table),
            image_of.astype(np.int64),
            first.select(columns).to_dicts(),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def by_image(self) -> Iterator[tuple[dict[str, Any], slice]]:
        """Yield every image, and the slice of `rows` and `windows` of its windows."""
        ends = np.append(np.flatnonzero(np.diff(self.image_of)) + 1, len(self.rows)).tolist()
        for image, start, stop in zip(self.images, [0, *ends[:-1]], ends, strict=True):
            yield image, slice(start, stop)


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """Labelled pixels (C,) of every class in the training windows, int64, and empty windows."""

    pixels: npt.NDArray[np.int64]  # (C,)
    n_images: int
    n_windows: int
    unlabelled_images: int
    unlabelled_windows: int

    @property
    def majority(self) -> int:
        """The most frequent class."""
        return int(self.pixels.argmax())

    @property
    def trained(self) -> int:
        """Number of classes with a labelled pixel."""
        return int((self.pixels > 0).sum())


def count_labels(maps: LabelMaps, windows: WindowRows, progress: Progress) -> LabelCounts:
    """Count the classes in every training window, which also finds faulty masks before training.

    Raise what `LabelMaps.read` raises, and `UsageError` if no window has a labelled pixel.
    """

    def count(item: tuple[dict[str, Any], slice]) -> npt.NDArray[np.int64]:
        image, at = item
        classes = maps.read(image)  # (H, W)
        cut = [cut_mask(classes, window) for window in windows.windows[at]]
        counts = [np.bincount(c.ravel(), minlength=IGNORED + 1)[:IGNORED] for c in cut]
        return np.stack(counts)  # (windows of the image, 255)

    pixels = np.zeros(IGNORED, np.int64)
    empty_images = empty_windows = 0
    progress.start(f"reading the labels of {maps.name}", len(windows.images), "images")
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pa-labels") as pool:
        try:
            for counts in pool.map(count, windows.by_image()):
                pixels += counts.sum(0)  # (255,)
                empty = int((counts.sum(1) == 0).sum())  # windows without a labelled pixel
                empty_windows += empty
                empty_images += empty == len(counts)
                progress.advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
            progress.stop()
    kept, n_images = pixels[: len(maps.classes)], len(windows.images)
    labels = LabelCounts(kept, n_images, len(windows), empty_images, empty_windows)
    if not labels.pixels.any():
        raise UsageError(
            f"nothing to train on: none of the {len(windows)} windows of {n_images} "
            f"images in {windows.store.title} has a pixel labelled with a class of {maps.name}."
        )
    return labels


def check_pair(train: FeatureSource, test: FeatureSource, representation: str) -> None:
    """Raise `MismatchError` for stores of different encoders or resolutions, `UsageError` for test
    windows that do not cover their images."""
    names = ("encoder", "transform")
    differing = [name for name in names if getattr(train.spec, name) != getattr(test.spec, name)]
    crops = [store.spec.view.get("crop") for store in (train, test)]
    if crops[0] != crops[1]:
        differing.append(f"crop ({crops[0]} and {crops[1]} pixels)")
    if train.shape(representation) != test.shape(representation):
        differing.append(f"shape of {representation}")
    if differing:
        raise MismatchError(
            f"a head trained on {train.title} cannot be scored on {test.title}: they differ in "
            f"{', '.join(dict.fromkeys(differing))}. Choose two of one encoder and resolution with "
            f"--train-store and --test-store."
        )
    if test.spec.view.get("views"):
        raise UsageError(
            f"{test.title} holds training crops, which do not cover the images. Score sliding "
            f"windows:\n  {test.command_for(view=windows_for(test.spec.dataset))}"
        )


def held_out(paths: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Draw about `fraction` of the images by `seed`: at least one, and not all.

    Raise `UsageError` for a fraction outside (0, 1) or fewer than two images.
    """
    names = sorted(set(paths))
    if not 0 < fraction < 1 or len(names) < 2:
        raise UsageError(
            f"cannot hold out {fraction:g} of {len(names)} images: expected a fraction between 0 "
            f"and 1, of two images or more. --test-fraction 0 scores the training images."
        )
    n = int(np.clip(round(fraction * len(names)), 1, len(names) - 1))
    order = np.random.default_rng(seed).permutation(len(names))  # of sorted names: reproducible
    return {names[i] for i in order[:n].tolist()}
