"""Datasets with label maps: building them, counting their classes, looking at their masks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.datasets.segmentation import labels
from pa.errors import MissingError, StorageError, UnknownNameError, UsageError
from pa.progress import Progress
from pa.tasks.choose import dataset_kind, load_images
from pa.tasks.datasets import DatasetCheck, ShowRequest, check_dataset

if TYPE_CHECKING:
    from pa.data.datasets.segmentation.build import SplitReport
    from pa.data.datasets.segmentation.check import MaskCheck


def has_masks(config: Config, name: str) -> bool:
    """Whether a dataset is one with label maps."""
    return dataset_kind(config, name) in labels.LABEL_SETS


# -- build ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildRequest:
    """What `pa datasets build` was asked. `images` is where the images lie if not under root."""

    name: str
    root: Path
    out: Path
    rule: str | None = None
    images: Path | None = None
    split: str | None = None
    copy: bool = False
    workers: int = 0


def build_dataset(config: Config, request: BuildRequest, progress: Progress) -> list[SplitReport]:
    """Write images and index PNGs of a dataset from its official release, split by split.

    Raises `MissingError` with the layout that was expected where the release is not there.
    """
    from pa.data.datasets.segmentation.build import build
    from pa.data.datasets.segmentation.releases import plan_build

    if request.out.resolve().is_relative_to(request.root.resolve()):
        raise UsageError(
            f"--out {request.out} is the release itself, or inside it ({request.root}): what is "
            f"built would be read as a part of the release. Choose a folder outside of it."
        )
    _require_writable(request.out)
    kind = dataset_kind(config, request.name)
    plan = plan_build(kind, request.root, images=request.images, rule=request.rule)
    if request.split is not None:
        if request.split not in plan.splits:
            raise UnknownNameError(f"split of {request.root}", request.split, plan.splits)
        plan = replace(plan, splits={request.split: plan.splits[request.split]})
    return build(plan, request.out, copy=request.copy, workers=request.workers, progress=progress)


def _require_writable(out: Path) -> None:
    """Raise `UsageError` where `out` is, or lies below, a file; `StorageError` if read-only."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"--out {out}: {there} is a file. Choose a folder.")
    if not os.access(there, os.W_OK):
        raise StorageError(
            f"--out {out}: {there} is read-only. Give write permission, or choose another folder."
        )


# -- check ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TreeCheck:
    """Outcome of `pa datasets check` for a tree with masks: its images, and its masks."""

    images: DatasetCheck
    masks: MaskCheck | None

    @property
    def is_whole(self) -> bool:
        return self.images.is_whole and (self.masks is None or not self.masks.faults)

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.images.dataset,
            "kind": self.images.kind,
            "root": str(self.images.root),
            "images": self.images.to_json(),
            "classes": [self.masks.to_json()] if self.masks else [],
        }


def check_tree(
    config: Config,
    name: str,
    root: Path | None,
    split: str | None,
    quick: bool,
    progress: Progress,
) -> TreeCheck:
    """Check the images of a tree and, unless `quick`, its masks.

    Raise `MissingError` with the expected layouts if there is no tree.
    """
    from pa.data.datasets.segmentation import tree
    from pa.data.datasets.segmentation.check import check_masks
    from pa.data.datasets.segmentation.releases import LAYOUTS

    kind = dataset_kind(config, name)
    try:
        images = check_dataset(config, name, root, split, None, quick, progress)
    except MissingError as error:
        if kind not in LAYOUTS or tree.layout(kind) not in str(error):
            raise
        raise MissingError(
            f"{error}\nBuild it from the official release:\n{LAYOUTS[kind]}"
        ) from None
    if quick:
        return TreeCheck(images, None)
    loaded = [load_images(config, name, root, each.split) for each in images.splits]
    label_set = tree.label_set(kind, images.root)
    return TreeCheck(images, check_masks(label_set, loaded, progress))


# -- show -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShownMasks:
    """The masks that were drawn over their images."""

    title: str
    certainty: str
    images: list[str]
    sheet: Path | None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "sheet": None if self.sheet is None else str(self.sheet)}


def show_masks(config: Config, request: ShowRequest) -> ShownMasks:
    """Draw masks over their images, spread evenly over a split."""
    from pa.data.datasets.segmentation import tree
    from pa.figures import mask_sheet

    images = load_images(config, request.dataset, request.root, request.split)
    label_set = tree.label_set(dataset_kind(config, images.dataset), images.root)
    drawn = []
    if request.out is not None:
        drawn = mask_sheet.draw(request.out, images, label_set, request.examples)
    title = f"{images.dataset} · {images.split} · {label_set.title}, {len(images.table):,} images"
    return ShownMasks(title, label_set.certainty, drawn, request.out)
