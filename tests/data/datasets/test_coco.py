"""COCO person keypoints in their official layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pa.data import datasets
from pa.data.datasets import coco
from pa.data.schema import Images
from pa.data.views.parts import PROTOCOLS
from pa.errors import AnnotationError, MissingError
from tests.support.trees import coco_json, person, write_coco

CONTENT = coco_json(
    3,
    [
        person(20, 1, {"nose": (30, 10, 2), "right_wrist": (30, 40, 2), "left_eye": (31, 9, 2)}),
        person(10, 1, {"left_ankle": (60, 50, 2), "nose": (60, 20, 1)}),
        person(30, 2, {"nose": (5, 5, 1)}),
    ],
)


def load(root: Path, split: str = "val2017") -> Images:
    return datasets.load("coco", "coco", root, split)


@pytest.mark.parametrize("folder", ["images/val2017", "val2017"])
def test_images_are_read_from_both_layouts(tmp_path: Path, folder: str) -> None:
    images = load(write_coco(tmp_path, CONTENT, folder=folder))
    assert images.table.select("image", "path", "label", "label_id").rows() == [
        (i, f"{folder}/{i + 1:012d}.jpg", None, None) for i in range(3)
    ]
    rows = PROTOCOLS["paper"].rows(images)
    # Objects by their annotation's id, parts in the order of the paper; image 3 shows no person.
    assert rows.select("image", "label", "label_id", "object", "class", "d").rows() == [
        (0, "left_ankle", 2, "10", None, pytest.approx((30**2 + 10**2) ** 0.5)),
        (0, "nose", 0, "20", None, 30.0),
        (0, "right_wrist", 1, "20", None, 30.0),
    ]


def test_split_needs_annotations_and_images(tmp_path: Path) -> None:
    write_coco(tmp_path, CONTENT)
    (tmp_path / "annotations/person_keypoints_train2017.json").write_text("{}")
    assert datasets.load("coco", "coco", tmp_path).split == "val2017"


def test_hidden_and_missing_keypoints_are_counted(tmp_path: Path) -> None:
    counts = PROTOCOLS["paper"].select(load(write_coco(tmp_path, CONTENT))).counts
    assert counts.kept == {"nose": 1, "right_wrist": 1, "left_ankle": 1}
    assert counts.skipped == {"not visible": {"nose": 2, "right_wrist": 2, "left_ankle": 2}}
    assert (counts.images, counts.images_kept, counts.annotated) == (3, 1, 9)


def test_missing_files_stay_in_the_table(tmp_path: Path) -> None:
    root = write_coco(tmp_path, CONTENT)
    (root / "images/val2017/000000000002.jpg").unlink()
    assert load(root).table["file_bytes"][1] == -1
    for file in (root / "images/val2017").iterdir():
        file.unlink()
    with pytest.raises(MissingError, match="none of the 3 images that the annotations list exists"):
        load(root)


def refused(tmp_path: Path, content: Any, message: str) -> None:
    root = write_coco(tmp_path, CONTENT)
    file = root / "annotations/person_keypoints_val2017.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(AnnotationError, match=message):
        load(root)


def test_instances_given_for_keypoints(tmp_path: Path) -> None:
    instances = {
        **CONTENT,
        "annotations": [{"id": 1, "image_id": 1, "segmentation": [], "category_id": 1}],
        "categories": [{"id": 1, "name": "person"}],
    }
    refused(tmp_path, instances, r"holds no person keypoints \(it looks like instances_\*\.json\)")


def test_captions_given_for_keypoints(tmp_path: Path) -> None:
    captions = {**CONTENT, "annotations": [{"id": 1, "image_id": 1, "caption": "a bird"}]}
    refused(tmp_path, captions, r"holds no person keypoints \(it looks like captions_\*\.json\)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append(c["images"][0]), "image id 1 occurs more than once"),
        (
            lambda c: c["images"].append({**c["images"][0], "id": 9}),
            "image file 000000000001.jpg occurs more than once",
        ),
        (lambda c: c["images"][0].pop("width"), r"images\[0\].width: Field required"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotation id 20 occurs more"),
        (lambda c: c["annotations"][0].pop("image_id"), r"annotations\[0\].image_id: Field required"),
        (
            lambda c: c["annotations"][0].update(image_id=99),
            r"1 annotations are of images that it does not list; the first is annotation 20 of image 99",
        ),
        (
            lambda c: c["annotations"][0]["keypoints"].pop(),
            "keypoints of annotation 20 are not 17 times x, y and v",
        ),
        (
            lambda c: c["annotations"][0]["keypoints"].__setitem__(2, 3),
            "keypoints of annotation 20 are not 17 times x, y and v",
        ),
        (
            lambda c: c["annotations"][0]["keypoints"].__setitem__(0, "left"),
            r"an entry does not have the format of COCO \(TypeError: must be real number",
        ),
        (
            lambda c: c["annotations"][0]["keypoints"].__setitem__(0, float("nan")),
            "keypoints of annotation 20 are not numbers",
        ),
        (lambda c: c["categories"][0]["keypoints"].reverse(), "Expected the 17 of COCO: nose, left_eye"),
        (lambda c: c.pop("annotations"), "has no list of annotations. Expected: a COCO annotation"),
    ],
)  # fmt: skip
def test_faulty_annotations_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = json.loads(json.dumps(CONTENT))
    change(content)
    refused(tmp_path, content, message)


def test_outlines_are_not_kept_in_memory(tmp_path: Path) -> None:
    """In the real file they are most of it, and nothing reads them."""
    content = json.loads(json.dumps(CONTENT))
    for entry in content["annotations"]:
        entry.update(segmentation=[[0.5] * 100_000], bbox=[1, 2, 3, 4])
    root = write_coco(tmp_path, content)
    file = root / "annotations/person_keypoints_val2017.json"
    (entry, *_) = coco._load(file)["annotations"]
    assert entry["segmentation"] is None
    assert set(entry) == {"id", "image_id", "category_id", "keypoints", "segmentation"}
    assert len(load(root).annotations().table) == 3 * 17
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # a byte-order mark
    assert len(load(root).annotations().table) == 3 * 17


def test_invalid_json_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "{", "is not JSON")
    refused(tmp_path, '"\\ud800', "is not JSON")
    refused(tmp_path, [1], "has no list of images, annotations, categories")


# Frozen counts: nose, right wrist, left ankle; images with a patch; images.
SAMPLE = {
    ("paper", "train2017"): ([51, 43, 28], 23, 25),
    ("paper", "val2017"): ([34, 30, 16], 21, 29),
    ("released", "train2017"): ([25, 32, 22], 20, 25),
    ("released", "val2017"): ([17, 20, 14], 16, 29),
}


@pytest.mark.shared
@pytest.mark.parametrize(("protocol", "split"), SAMPLE)
def test_counts_of_the_real_sample(shared_dir: Path, protocol: str, split: str) -> None:
    counts = PROTOCOLS[protocol].select(load(shared_dir / "data" / "coco_mini", split)).counts
    assert (list(counts.kept.values()), counts.images_kept, counts.images) == SAMPLE[
        protocol, split
    ]
