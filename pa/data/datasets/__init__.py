"""Datasets: read an official layout on disk as one table of images and labels.

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
from pa.data.datasets.segmentation import tree
from pa.data.datasets.segmentation.releases import RELEASES
from pa.data.schema import Boxes, Images, Keypoints
from pa.errors import AmbiguousError, MissingError, PaError, UnknownNameError
from pa.registry import Registry


@dataclass(frozen=True)
class Expected:
    """Numbers of images and of image classes in the official release of a split."""

    images: int
    classes: int | None = None


@dataclass(frozen=True)
class Kind:
    """The functions that read one kind of dataset.

    `splits(root)` lists the existing splits; `read(root, split)` returns the table of images,
    sorted by relative path: path (POSIX, relative to root), label, label_id, file_bytes.
    `subsets(root)` lists further splits, which are read only by name; `annotations(root, split)`
    returns the parts for view `parts`; `expected` holds the numbers of the official release by
    split; `remarks(table)` returns further lines for `pa datasets check`.
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
                tree.layout(name, release.readable),
                default_view="windows",
                expected={split: Expected(n) for split, n in release.images.items()},
            )
            for name, release in RELEASES.items()
        },
    },
    hint="A dataset of another name is set in pa.toml: [datasets.NAME] with kind and root.",
    group="pa.datasets",
    of=Kind,
)


def load(
    name: str, kind: str, root: Path, split: str | None = None, boxes: Path | None = None
) -> Images:
    """Read the table of images of a split; None selects the only one.

    `name` is that of the dataset in the store and in messages, `kind` its layout, a name of
    `DATASETS`. `boxes` is a table of boxes for view `parts`, which replaces the annotations of the
    dataset.

    Raises
    ------
    MissingError
        If the root or the images do not exist.
    UnknownNameError
        If the split does not exist.
    AmbiguousError
        If no split is given and several exist.
    """
    entry = DATASETS[kind]
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise MissingError(
            f"dataset {name}: {root} is not a folder. Expected there:\n{entry.layout}\n"
            f'Give its root with --root DIR, or in pa.toml: [datasets.{name}] root = "…".'
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
    # Sorted, so that the images have the same numbers on every machine.
    numbered = table.sort("path").with_row_index("image")
    parts: Callable[[], Keypoints | Boxes] | None = None  # read when a view needs them
    if boxes is not None:
        parts = partial(box_tables.read, boxes, root, table["path"])
    elif entry.annotations is not None:
        parts = partial(entry.annotations, root, split)
    return Images(name, split, root, numbered, parts)


def _nearby_root(entry: Kind, root: Path) -> str:
    """Return a sentence that names the likely root, one level below or above; or nothing."""
    below = [root / name for name in subfolders(root)]
    likely = [folder for folder in below if _splits_of(entry, folder)]
    if root.name in _splits_of(entry, root.parent):
        likely.append(root.parent)
    shown = ", ".join(str(folder) for folder in likely[:3])
    return f"\nThis looks like the root: {shown}. Try --root {likely[0]}" if likely else ""


def _splits_of(entry: Kind, folder: Path) -> list[str]:
    try:
        return entry.splits(folder)
    except (OSError, PaError):
        return []
