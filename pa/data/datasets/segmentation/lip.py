"""LIP, Look into Person (single person): parsing PNGs with the values 0 to 19.

    <root>/TrainVal_images/{train_images,val_images}/<id>.jpg     (png, …)
    <root>/TrainVal_parsing_annotations/{train_segmentations,val_segmentations}/<id>.png
    <root>/train_id.txt, val_id.txt      optional: the images of each split

In some archives each folder contains itself once. The values are those of the label set already, so
the release can be read without a build; building checks every mask and drops palettes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pa.data.datasets.listing import list_images, read_ids
from pa.data.datasets.segmentation import labels, masks
from pa.data.datasets.segmentation.build import BuildPlan, Item, LabelMap
from pa.data.datasets.segmentation.tree import OFFICIAL_LIP, find_splits
from pa.errors import MissingError


def plan(root: Path) -> BuildPlan:
    """Plan LIP's images with their parsing, restricted to the id lists if these exist."""
    label_set = labels.load("lip")
    splits, notes = {}, []
    for split, folders in find_splits(root).items():
        images, parsing = root / folders.images, root / folders.masks
        in_folder = [root / path for path in list_images(root, folders.images)["path"]]
        ids = _ids(root, images, split)
        if ids is None:
            notes.append(f"{split}: no {split}_id.txt: the images are those of the folder")
            chosen = in_folder
        else:
            # An id without a file keeps its place: the build reports the missing image.
            by_id: dict[str, list[Path]] = {}
            for path in in_folder:
                by_id.setdefault(path.stem, []).append(path)
            chosen = [path for name in ids for path in by_id.get(name, [images / f"{name}.jpg"])]
            listed = set(chosen)
            if unlisted := [path.name for path in in_folder if path not in listed]:
                notes.append(
                    f"{split}: {len(unlisted)} images of the folder are not in {split}_id.txt and "
                    f"are skipped, such as {unlisted[0]}"
                )
        splits[split] = [Item(p.stem, p, partial(_rasterize, parsing, p.stem)) for p in chosen]
    if not any(splits.values()):
        raise MissingError(f"no LIP in {root}. Expected there:\n{OFFICIAL_LIP}")
    return BuildPlan(label_set, label_set.rule, root, splits, tuple(notes))


def _rasterize(folder: Path, name: str) -> LabelMap:
    return LabelMap(masks.read_index(folder / f"{name}.png"))


def _ids(root: Path, images: Path, split: str) -> list[str] | None:
    """Read the id list in the parent of the images' folder or above it, up to the root."""
    for folder in (images.parent, *images.parent.parents):
        path = folder / f"{split}_id.txt"
        if path.is_file():
            return read_ids(path)
        if folder == root:
            break
    return None
