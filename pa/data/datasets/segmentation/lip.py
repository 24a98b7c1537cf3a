"""LIP, Look into Person (single person): parsing PNGs with the values 0 to 19.

    <root>/TrainVal_images/{train_images,val_images}/<id>.jpg     (png, …)
    <root>/TrainVal_parsing_annotations/{train_segmentations,val_segmentations}/<id>.png
    <root>/train_id.txt, val_id.txt      optional: the images of each split

Some archives put each folder a second time inside itself. The values are those of the label set
already, so the tree is read as it lies; building it checks every mask and drops palettes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pa.data.datasets.listing import list_images, read_ids
from pa.data.datasets.segmentation import labels, masks
from pa.data.datasets.segmentation.build import Item, Painted, Plan
from pa.data.datasets.segmentation.tree import OFFICIAL_LIP, find_splits
from pa.errors import MissingError


def paint(path: Path) -> Painted:
    """The parsing of one image, its raw values."""
    return Painted(masks.read_index(path))


def plan(root: Path) -> Plan:
    """LIP's images with their parsing, by the id lists where they are there."""
    label_set = labels.load("lip")
    splits, notes = {}, []
    for split, folders in find_splits(root).items():
        images, maps = root / folders.images, root / folders.masks
        here = [root / path for path in list_images(root, folders.images)["path"]]
        ids = _ids(root, images, split)
        if ids is None:
            notes.append(f"{split}: no {split}_id.txt: the images are those of the folder")
            chosen = here
        else:
            chosen = _chosen(ids, here, images)
            taken = set(chosen)
            if left := [path.name for path in here if path not in taken]:
                notes.append(
                    f"{split}: {len(left)} images of the folder are not in {split}_id.txt and are "
                    f"left out, such as {left[0]}"
                )
        splits[split] = [
            Item(path.stem, path, partial(paint, maps / f"{path.stem}.png")) for path in chosen
        ]
    if not any(splits.values()):
        raise MissingError(f"no LIP in {root}. Expected there:\n{OFFICIAL_LIP}")
    return Plan(label_set, label_set.rule, root, splits, tuple(notes))


def _chosen(ids: list[str], here: list[Path], images: Path) -> list[Path]:
    """The images of a list; those that are not there with the suffix of the release."""
    by_id: dict[str, list[Path]] = {}
    for path in here:
        by_id.setdefault(path.stem, []).append(path)
    return [path for name in ids for path in by_id.get(name, [images / f"{name}.jpg"])]


def _ids(root: Path, images: Path, split: str) -> list[str] | None:
    """The ids of a list beside the images' folder or above it, up to the root."""
    for folder in (images.parent, *images.parent.parents):
        path = folder / f"{split}_id.txt"
        if path.is_file():
            return read_ids(path)
        if folder == root:
            break
    return None
