"""Datasets: from the official layout on disk to one table of images and labels.

A dataset kind is one module with a `list_splits` and a `read` function, and one line in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from pa.data.datasets import boxes as box_tables
from pa.data.datasets import coco, cub, folder, imagenet
from pa.data.datasets.listing import subfolders
from pa.data.datasets.segmentation import labels, tree
from pa.data.schema import Boxes, Images, Keypoints
from pa.errors import AmbiguousError, MissingError, PaError, UnknownNameError
from pa.registry import Registry


@dataclass(frozen=True)
class Expected:
    """What the official release of a split holds: images, and classes where images have them."""

    images: int
    classes: int | None = None


@dataclass(frozen=True)
class Kind:
    """How one kind of dataset is read.

    `splits(root)` lists the splits that are there; `read(root, split)` gives the table of images,
    sorted by relative path: path (POSIX, relative to root), label, label_id, file_bytes.
    `subsets(root)` lists further splits, which are read only where they are asked for by name;
    `annotations(root, split)` gives the parts for view `parts`; `expected` says by split what the
    official release holds; `remarks(table)` adds lines to what `pa datasets check` reports.
    """

    splits: Callable[[Path], list[str]]
    read: Callable[[Path, str], pl.DataFrame]
    layout: str
    default_view: str = "grid"
    subsets: Callable[[Path], list[str]] | None = None
    annotations: Callable[[Path, str], Keypoints | Boxes] | None = None
    expected: Mapping[str, Expected] = field(default_factory=dict)
    remarks: Callable[[pl.DataFrame], list[str]] | None = None


DATASETS: Registry[Kind] = Registry(
    "dataset",
    {
        "imagenet": Kind(
            imagenet.list_splits,
            imagenet.read,
            imagenet.LAYOUT,
            subsets=imagenet.list_subsets,
            expected={
                "train": Expected(1_281_167, 1000),
                "val": Expected(50_000, 1000),
                imagenet.SUBSET: Expected(25_003),
            },
            remarks=imagenet.remarks,
        ),
        "folder": Kind(folder.list_splits, folder.read, folder.LAYOUT),
        "cub": Kind(
            cub.list_splits,
            cub.read,
            cub.LAYOUT,
            default_view="parts",
            annotations=cub.read_parts,
            expected={
                "train": Expected(5_994, 200),
                "test": Expected(5_794, 200),
                "all": Expected(11_788, 200),
            },
        ),
        "coco": Kind(
            coco.list_splits,
            coco.read,
            coco.LAYOUT,
            default_view="parts",
            annotations=coco.read_parts,
            expected={"train2017": Expected(118_287), "val2017": Expected(5_000)},
        ),
        **{
            name: Kind(
                tree.list_splits,
                partial(tree.read, name),
                tree.layout(name),
                default_view="windows",
                expected={split: Expected(n) for split, n in tree.EXPECTED[name].items()},
            )
            for name in labels.LABEL_SETS
        },
    },
    hint="A dataset of another name is set in pa.toml: [datasets.NAME] with kind and root.",
    group="pa.datasets",
    of=Kind,
)


def load(
    name: str, kind: str, root: Path, split: str | None = None, boxes: Path | None = None
) -> Images:
    """Read the table of images of a dataset's split.

    Without `split`, the only one there is. `boxes` is a table of boxes for view `parts`, of any
    kind of dataset; it takes the place of the dataset's own annotations. Raises `MissingError`
    where the root or the images are not there, `UnknownNameError` for a split that is not,
    `AmbiguousError` where several are.
    """
    entry = DATASETS[kind]
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise MissingError(
            f"dataset {name}: {root} is not a folder. Expected there:\n{entry.layout}\n"
            f'Give its place with --root DIR, or in pa.toml: [datasets.{name}] root = "…".'
        )
    splits = entry.splits(root)
    if not splits:
        raise MissingError(
            f"dataset {name}: no split found in {root}. Expected there:\n{entry.layout}"
            f"{_nearby_root(entry, root)}"
        )
    if split is None:
        if len(splits) > 1:
            raise AmbiguousError(
                f"dataset {name} has the splits {', '.join(splits)}: choose one with --split."
            )
        split = splits[0]
    elif split not in (known := [*splits, *(entry.subsets(root) if entry.subsets else [])]):
        raise UnknownNameError(f"split of dataset {name} in {root}", split, known)
    table = entry.read(root, split)
    if table.is_empty():
        raise MissingError(
            f"dataset {name}: no image in split {split} of {root}. Expected there:\n{entry.layout}"
        )
    numbered = table.sort("path").with_row_index("image")
    return Images(name, split, root, numbered, _annotations(entry, root, split, table, boxes))


def _nearby_root(entry: Kind, root: Path) -> str:
    """A sentence that names the folder which looks like the root: one level below or above."""
    below = [root / name for name in subfolders(root)]
    found = [folder for folder in below if _splits_of(entry, folder)]
    if root.name in _splits_of(entry, root.parent):
        found.append(root.parent)
    if not found:
        return ""
    looks = ", ".join(str(folder) for folder in found[:3])
    return f"\nThis looks like the root: {looks}. Try --root {found[0]}"


def _splits_of(entry: Kind, folder: Path) -> list[str]:
    try:
        return entry.splits(folder)
    except (OSError, PaError):
        return []


def _annotations(
    entry: Kind, root: Path, split: str, table: pl.DataFrame, boxes: Path | None
) -> Callable[[], Keypoints | Boxes] | None:
    """How to read the parts; they are read only when a view wants them."""
    if boxes is not None:
        return partial(box_tables.read, boxes, root, table["path"])
    return partial(entry.annotations, root, split) if entry.annotations else None
