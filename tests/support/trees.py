"""Miniature CUB and COCO trees in their official layouts, written by the tests that read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pa.data.datasets.coco import NAMES
from tests.support.images import noise_image

CUB_PARTS = (
    *("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg"),
    *("left wing", "nape", "right eye", "right leg", "right wing", "tail", "throat"),
)
SIZE = (80, 60)

Point = tuple[float, float]


def write_cub(
    root: Path,
    birds: Sequence[Mapping[str, Point]],
    train: Sequence[int] = (),
    size: tuple[int, int] = SIZE,
) -> Path:
    """One image per bird, ids from 1, two classes in turn; the parts not named are not visible."""
    (root / "parts").mkdir(parents=True)
    classes = ["001.Auk", "002.Wren"]
    images, labels, flags, locations = [], [], [], []
    for number, bird in enumerate(birds, start=1):
        name = classes[(number - 1) % 2]
        path = f"{name}/{name[4:]}_{number:04d}.jpg"
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
        noise_image(number, size).save(root / "images" / path)
        images.append(f"{number} {path}")
        labels.append(f"{number} {(number - 1) % 2 + 1}")
        flags.append(f"{number} {int(number in train)}")
        for part_id, part in enumerate(CUB_PARTS, start=1):
            x, y = bird.get(part, (0.0, 0.0))
            locations.append(f"{number} {part_id} {x} {y} {int(part in bird)}")
    _lines(root / "images.txt", images)
    _lines(root / "classes.txt", [f"{i} {name}" for i, name in enumerate(classes, start=1)])
    _lines(root / "image_class_labels.txt", labels)
    _lines(root / "train_test_split.txt", flags)
    _lines(root / "parts/parts.txt", [f"{i} {p}" for i, p in enumerate(CUB_PARTS, start=1)])
    _lines(root / "parts/part_locs.txt", locations)
    return root


def _lines(file: Path, lines: Sequence[str]) -> None:
    file.write_text("\n".join(lines) + "\n")


def person(id: int, image: int, points: Mapping[str, tuple[float, float, int]]) -> dict[str, Any]:
    """A person annotation; the keypoints not named are (0, 0, 0)."""
    flat = [value for name in NAMES for value in points.get(name, (0, 0, 0))]
    return {"id": id, "image_id": image, "keypoints": flat, "category_id": 1, "iscrowd": 0}


def coco_json(n_images: int, persons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": SIZE[0], "height": SIZE[1]}
            for i in range(1, n_images + 1)
        ],
        "annotations": list(persons),
        "categories": [{"id": 1, "name": "person", "keypoints": list(NAMES)}],
    }


def write_coco(
    root: Path, content: dict[str, Any], split: str = "val2017", folder: str = "images/val2017"
) -> Path:
    """The annotations, and an image file for each that they list."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / folder).mkdir(parents=True, exist_ok=True)
    file = root / "annotations" / f"person_keypoints_{split}.json"
    file.write_text(json.dumps(content))
    for image in content["images"]:
        noise_image(image["id"], SIZE).save(root / folder / image["file_name"])
    return root
