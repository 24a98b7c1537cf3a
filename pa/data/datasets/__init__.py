"""Datasets: from the official layout on disk to one table of images and labels.

A dataset kind is one module with a `list_splits` and a `read` function, and one line in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from pa.data.datasets import folder, imagenet
from pa.errors import AmbiguousError, MissingError, UnknownNameError
from pa.registry import Registry


@dataclass(frozen=True)
class Kind:
    """How one kind of dataset is read.

    `splits(root)` lists the splits that are there; `read(root, split)` gives the table of images,
    sorted by relative path: path (POSIX, relative to root), label, label_id, file_bytes.
    """

    splits: Callable[[Path], list[str]]
    read: Callable[[Path, str], pl.DataFrame]
    layout: str
    default_view: str = "grid"


DATASETS: Registry[Kind] = Registry(
    "dataset",
    {
        "imagenet": Kind(imagenet.list_splits, imagenet.read, imagenet.LAYOUT),
        "folder": Kind(folder.list_splits, folder.read, folder.LAYOUT),
    },
    hint="A dataset of another name is set in pa.toml: [datasets.NAME] with kind and root.",
)


@dataclass(frozen=True)
class Images:
    """The images of one split: name, root folder and table."""

    dataset: str
    split: str
    root: Path
    table: pl.DataFrame

    def first(self, n: int | None) -> Images:
        """The first n images; all of them for None."""
        return self if n is None else replace(self, table=self.table.head(n))


def load(name: str, kind: str, root: Path, split: str | None = None) -> Images:
    """Read the table of images of a dataset's split.

    Without `split`, the only one there is. Raises `MissingError` where the root or the images are
    not there, `UnknownNameError` for a split that is not, `AmbiguousError` where several are.
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
        )
    if split is None:
        if len(splits) > 1:
            raise AmbiguousError(
                f"dataset {name} has the splits {', '.join(splits)}: choose one with --split."
            )
        split = splits[0]
    elif split not in splits:
        raise UnknownNameError(f"split of dataset {name} in {root}", split, splits)
    table = entry.read(root, split)
    if table.is_empty():
        raise MissingError(
            f"dataset {name}: no image in split {split} of {root}. Expected there:\n{entry.layout}"
        )
    numbered = table.sort("path").with_row_index("image")
    return Images(name, split, root, numbered)
