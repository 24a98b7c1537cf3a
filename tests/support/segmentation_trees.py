"""Miniature official releases of the segmentation datasets, written by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

from tests.support.images import noise_image

SIZE = (12, 8)  # width, height
Box = tuple[int, int, int, int]  # x0, y0, x1, y1

# Class numbers of the real index. Car is one of the 59 objects; crosswalk a part that is not listed.
BUILDING, CAR, SKY, ROAD = 312, 401, 2420, 2131
DOOR, WINDOW, WHEEL, RIM, CROSSWALK = 774, 3050, 3035, 2122, 665


def rgb_of(codes: npt.NDArray[np.int64], instances: npt.NDArray[np.int64] | int = 1) -> Image.Image:
    """Class numbers as ADE20K writes them: R = 10 * (number // 256), G = number % 256, B instance."""
    pixels = np.stack([codes // 256 * 10, codes % 256, np.where(codes > 0, instances, 0)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def canvas(*boxes: tuple[Box, int]) -> npt.NDArray[np.int64]:
    """Return a map of the size of a test image: 0 outside the boxes, drawn in order."""
    values = np.zeros((SIZE[1], SIZE[0]), np.int64)
    for (x0, y0, x1, y1), value in boxes:
        values[y0:y1, x0:x1] = value
    return values


def ade_image(
    root: Path, name: str, seg: npt.NDArray[np.int64], *parts: npt.NDArray[np.int64], atr: str = ""
) -> Path:
    """One image of the full release in its scene's folder; with `_atr.txt` as in 2016/17."""
    split = {"train": "training", "val": "validation"}[name.split("_")[1]]
    folder = root / "images" / split / "s" / "street"
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{name}.jpg"
    noise_image(len(name), SIZE).save(image)
    rgb_of(seg).save(folder / f"{name}_seg.png")
    for level, codes in enumerate(parts, 1):
        rgb_of(codes).save(folder / f"{name}_parts_{level}.png")
    if atr:
        (folder / f"{name}_atr.txt").write_text(atr)
    return image


def pascal_mat(
    root: Path, name: str, *objects: tuple[int, str, Box, Sequence[tuple[str, Box]]]
) -> Path:
    """One `.mat` of Pascal-Part and its image: objects of (VOC class, name, silhouette, parts)."""
    for folder in ("Annotations_Part", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    noise_image(len(name), SIZE).save(root / "JPEGImages" / f"{name}.jpg")
    records = np.zeros(
        (1, len(objects)), [(f, "O") for f in ("class", "class_ind", "mask", "parts")]
    )
    for i, (voc_class, label, box, parts) in enumerate(objects):
        entries = np.zeros((1, len(parts)), [("part_name", "O"), ("mask", "O")])
        for j, (part, part_box) in enumerate(parts):
            entries[0, j] = (part, canvas((part_box, 1)).astype(np.uint8))
        none: Any = np.zeros((0, 0))
        records[0, i] = (
            label,
            voc_class,
            canvas((box, 1)).astype(np.uint8),
            entries if parts else none,
        )
    path = root / "Annotations_Part" / f"{name}.mat"
    savemat(path, {"anno": {"imname": name, "objects": records}})
    return path


def voc_lists(root: Path, **splits: Sequence[str]) -> None:
    """VOC2010's lists of the images of each split."""
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    for split, ids in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))


def lip_image(root: Path, split: str, name: str, values: Any, nested: bool = False) -> None:
    """One person of LIP with its parsing, in a palette image as the annotation tool writes it."""
    for top, below, suffix in (
        ("TrainVal_images", f"{split}_images", "jpg"),
        ("TrainVal_parsing_annotations", f"{split}_segmentations", "png"),
    ):
        folder = root / top / top / below if nested else root / top / below
        folder.mkdir(parents=True, exist_ok=True)
        if suffix == "jpg":
            noise_image(len(name), SIZE).save(folder / f"{name}.jpg")
            continue
        parsing = Image.fromarray(np.asarray(values, np.uint8))
        parsing.putpalette([7 * i % 256 for i in range(768)])
        parsing.save(folder / f"{name}.png")


def index_tree(
    root: Path, split: str, maps: dict[str, Any], sizes: dict[str, tuple[int, int]] | None = None
) -> Path:
    """Images and index PNGs as `pa datasets build` lays them, without its report."""
    for name, values in maps.items():
        array = np.asarray(values, np.uint8)
        size = (sizes or {}).get(name, (array.shape[1], array.shape[0]))
        for folder in ("img", "ann"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        noise_image(len(name), size).save(root / "img" / split / f"{name}.jpg")
        Image.fromarray(array).save(root / "ann" / split / f"{name}.png")
    return root
