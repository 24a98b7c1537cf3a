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
from pa.data.datasets.segmentation.build import BuildPlan, Item, LabelMap, Release
from pa.data.datasets.segmentation.tree import find_splits
from pa.errors import MissingError

READABLE = """  <root>/TrainVal_images/{train_images,val_images}/<id>.jpg
  <root>/TrainVal_parsing_annotations/{train_segmentations,val_segmentations}/<id>.png
(each folder once, or containing itself once, as in some archives)"""


def plan(
    dataset: str, root: Path, images: Path | None = None, rule: str | None = None
) -> BuildPlan:
    """Plan LIP's images with their parsing, restricted to the id lists if these exist."""
    label_set = labels.load(dataset)
    splits, notes = {}, []
    for split, folders in find_splits(root).items():
        folder, parsing = root / folders.images, root / folders.masks
        chosen = [root / path for path in list_images(root, folders.images)["path"]]
        # The id list is next to the folder of images or above it, up to the root.
        above = [path for path in folder.parents if path.is_relative_to(root)]
        lists = (path / f"{split}_id.txt" for path in above)
        if (ids := next((path for path in lists if path.is_file()), None)) is None:
            notes.append(f"{split}: no {split}_id.txt: the images are those of the folder")
        else:
            by_id: dict[str, list[Path]] = {}
            for path in chosen:
                by_id.setdefault(path.stem, []).append(path)
            # An id without a file keeps its position: the build reports the missing image.
            listed = [p for i in read_ids(ids) for p in by_id.get(i, [folder / f"{i}.jpg"])]
            in_list = set(listed)
            if unlisted := [path.name for path in chosen if path not in in_list]:
                notes.append(
                    f"{split}: {len(unlisted)} images of the folder are not in {ids.name} and are "
                    f"skipped, such as {unlisted[0]}"
                )
            chosen = listed
        splits[split] = [Item(p.stem, p, partial(_read, parsing / f"{p.stem}.png")) for p in chosen]
    if not any(splits.values()):
        raise MissingError(f"no LIP in {root}. Expected there:\n{READABLE}")
    return BuildPlan(label_set, label_set.rule, root, splits, tuple(notes))


def _read(mask: Path) -> LabelMap:
    return LabelMap(masks.read_index(mask))


RELEASES = {
    "lip": Release(
        plan,
        {"train": 30_462, "val": 10_000},
        readable=READABLE,
        windows=(320, 161, 4096, 320, 1024, 320),
    )
}
