"""Datasets with label maps: building them, counting their classes, looking at their masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.datasets.segmentation import labels
from pa.errors import MissingError, StorageError, UnknownNameError, UsageError
from pa.progress import Progress
from pa.tasks.choose import dataset_kind, dataset_root, load_images
from pa.tasks.datasets import DatasetCheck, ShowRequest, check_dataset

if TYPE_CHECKING:
    from pa.data.datasets.check import SplitCheck
    from pa.data.datasets.segmentation.build import Plan, SplitReport
    from pa.data.datasets.segmentation.class_check import ClassCheck
    from pa.data.schema import Images

# Rules of a builder; the first is the default.
RULES = {"ade20k-object": ("challenge", "seg"), "pascal-part": ("file", "area")}


def has_masks(config: Config, name: str) -> bool:
    """Whether a dataset is one with label maps."""
    return dataset_kind(config, name) in labels.LISTS


# -- build ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildRequest:
    """What `pa datasets build` was asked. `images` is where the images lie if not under root."""

    name: str
    root: Path
    out: Path
    list_name: str = labels.DEFAULT
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

    if request.out.resolve().is_relative_to(request.root.resolve()):
        raise UsageError(
            f"--out {request.out} is the release itself, or inside it ({request.root}): what is "
            f"built would be read as a part of the release. Choose a folder outside of it."
        )
    _require_writable(request.out)
    plan = plan_build(dataset_kind(config, request.name), request)
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


def plan_build(kind: str, request: BuildRequest) -> Plan:
    """What there is to build of a release, by the rule and the list that were asked for."""
    from pa.data.datasets.segmentation import ade20k, lip, pascal

    if kind not in labels.LISTS:
        raise UnknownNameError("dataset with label maps", kind, labels.LISTS)
    if not request.root.is_dir():
        raise MissingError(f"--root {request.root} is not a folder.")
    labels.load(kind, request.list_name)
    rules = RULES.get(kind, ())
    if request.rule is not None and request.rule not in rules:
        raise UnknownNameError(f"rule of {kind}", request.rule, rules)
    if kind in ("pascal-part", "pascal-object"):
        return pascal.plan(kind, request.root, request.images, request.rule)
    if kind == "lip":
        return lip.plan(request.root)
    make = {
        "ade20k": ade20k.plan_scenes,
        "ade20k-object": ade20k.plan_objects,
        "ade20k-part": ade20k.plan_parts,
    }[kind]
    return make(request.root, request.list_name, request.rule)


# -- check ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskCheck:
    """What `pa datasets check` found: the images of a tree, and the class counts of its files."""

    dataset: str
    kind: str
    root: Path
    images: DatasetCheck | None
    classes: list[ClassCheck]

    @property
    def is_whole(self) -> bool:
        sound = not any(check.faults for check in self.classes)
        return sound and (self.images is None or self.images.is_whole)

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "root": str(self.root),
            "images": self.images.to_json() if self.images else None,
            "classes": [check.to_json() for check in self.classes],
        }


def check_masks(
    config: Config,
    name: str,
    root: Path | None,
    split: str | None,
    quick: bool,
    progress: Progress,
    images: Path | None = None,
) -> MaskCheck:
    """Recompute the class counts of a dataset from a built tree, or from an official release.

    `images` is where VOC2010 lies if not under the root of Pascal-Part. Raises `MissingError` with
    the expected layouts where neither is there.
    """
    from pa.data.datasets.segmentation import tree

    kind, place = dataset_kind(config, name), dataset_root(config, name, root)
    if place.is_dir():
        listed = _release_images(name, kind, place, images, split, None if quick else progress)
        found = list(_releases(kind, place, listed, split, quick, progress))
        if found or listed is not None:
            return MaskCheck(name, kind, place, listed.check if listed else None, found)
    try:
        tree_images = check_dataset(config, name, root, split, None, quick, progress)
    except MissingError as error:
        if (release := _release_layout(kind)) is None or tree.layout(kind) not in str(error):
            raise
        raise MissingError(f"{error}\nor the official release:\n{release}") from None
    classes = []
    if not quick:
        splits = [one.split for one in tree_images.splits]
        classes = [_check_tree(config, name, place, splits, progress)]
    return MaskCheck(name, kind, place, tree_images, classes)


def _check_tree(
    config: Config, name: str, root: Path, splits: list[str], progress: Progress
) -> ClassCheck:
    from pa.data.datasets.segmentation import class_check, tree

    label_set = tree.label_set(dataset_kind(config, name), root)
    loaded = [load_images(config, name, root, split) for split in splits]
    return class_check.check_tree(label_set, loaded, progress)


@dataclass(frozen=True)
class _Listed:
    """The images of a release whose splits are lists or masks of another kind."""

    check: DatasetCheck
    images: list[Images]
    sizes: dict[str, tuple[int, int]]
    names: set[str]


def _release_images(
    name: str,
    kind: str,
    root: Path,
    voc: Path | None,
    split: str | None,
    progress: Progress | None,
) -> _Listed | None:
    """The images of Pascal-Part, or of ADEChallengeData2016 read for its objects; else None.

    Without `progress` the images are not opened.
    """
    from pa.data import datasets
    from pa.data.datasets.check import check_files
    from pa.data.datasets.segmentation import pascal, tree

    if kind in ("pascal-object", "pascal-part") and (root / "Annotations_Part").is_dir():
        if voc is None and not pascal.has_voc(root):
            return None
        place = pascal.find_voc(root, voc)
        lists = {
            one: [f"JPEGImages/{image}.jpg" for image in ids]
            for one, ids in pascal.annotated(root, voc).items()
        }
        loaded: list[Images] = []
    elif kind == "ade20k-object" and tree.is_scene_parsing(root):
        loaded = [datasets.load(name, "ade20k", root, one) for one in tree.list_splits(root)]
        lists = {one.split: one.table["path"].to_list() for one in loaded}
        place = root
    else:
        return None
    if split is not None and split not in lists:
        raise UnknownNameError(f"split of dataset {name} in {root}", split, lists)
    expected = datasets.DATASETS[kind].expected
    checks: list[SplitCheck] = []
    names: set[str] = set()
    sizes: dict[str, tuple[int, int]] = {}
    for one, paths in lists.items():
        if split in (None, one):
            checked, headers = check_files(one, expected.get(one), place, paths, progress)
            checks.append(checked)
            names |= {Path(path).stem for path in paths}
            sizes |= {Path(path).stem: h.size for path, h in headers.items() if h.size}
    chosen = [one for one in loaded if split in (None, one.split)]
    return _Listed(DatasetCheck(name, kind, place, checks), chosen, sizes, names)


def _releases(
    kind: str,
    root: Path,
    listed: _Listed | None,
    split: str | None,
    quick: bool,
    progress: Progress,
) -> Iterator[ClassCheck]:
    """The checks of what a root holds of an official release; `quick` opens no index PNG."""
    from pa.data.datasets.segmentation import ade20k, ade20k_index, class_check

    if kind in ("ade20k-object", "ade20k-part"):
        if (index := ade20k_index.find_index(root)) is not None:
            yield class_check.check_index(index)
        if ade20k.find_release(root):
            yield class_check.check_ade20k(root, kind, progress, split)
    if kind == "ade20k-object" and listed is not None and not quick:
        yield class_check.check_challenge(labels.load(kind), listed.images, progress)
    if kind in ("pascal-object", "pascal-part") and (root / "Annotations_Part").is_dir():
        found = class_check.check_pascal(
            root,
            progress,
            kind,
            sizes=listed.sizes if listed else {},
            names=None if listed is None or split is None else listed.names,
        )
        if listed is None:
            found.notes.append("no JPEGImages here: the images were not looked at (--images DIR)")
        yield found


def _release_layout(kind: str) -> str | None:
    """The release that a tree is built from; None where the dataset's own layout shows it."""
    from pa.data.datasets.segmentation import ade20k, pascal

    layouts = {
        "ade20k-object": ade20k.RELEASE,
        "ade20k-part": f"{ade20k.RELEASE}\n  <root>/[*/]index_ade20k.mat",
        "pascal-object": pascal.RELEASE,
        "pascal-part": pascal.RELEASE,
    }
    return layouts.get(kind)


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
