"""Faulty annotation files are refused with the position of the fault."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pa.data import datasets
from pa.data.views.parts import PartsView
from pa.errors import AnnotationError, PaError, UsageError
from pa.figures.paper import fit
from tests.support.trees import coco_json, person, write_coco, write_cub

BIRDS = [{"tail": (40.0, 30.0), "left wing": (20.0, 20.0)}] * 3
Change = Callable[[dict[str, Any]], object]


def line(root: Path, file: str, old: str, new: str) -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("image_class_labels.txt", "1 1\n", "1 99999999999999999999999\n", "line 1: .*a number"),
        ("image_class_labels.txt", "1 1\n", "99999999999999999999999 1\n", "line 1: .*an id"),
        ("image_class_labels.txt", "1 1\n", "0_1 1\n", "line 1: .*an id"),
        ("image_class_labels.txt", "1 1\n", "١ 1\n", "line 1: .*an id"),
        ("image_class_labels.txt", "1 1\n", "1 1\n77 1\n", "image 77 is not in images.txt"),
        ("classes.txt", "2 002.Wren", "2 001.Auk", "001.Auk occurs more than once"),
        ("images.txt", "1 001.Auk/", "1 ../001.Auk/", "not a path below the root"),
        ("parts/part_locs.txt", "1 14 40.0 30.0", "1 14 1e10 30.0", "within ±1,000,000"),
        ("parts/part_locs.txt", "1 14 40.0", "99999999999999999999 14 40.0", "image id, part id"),
        ("parts/part_locs.txt", "1 14 40.0", "1 14 4_0.0", "image id, part id"),
        ("parts/part_locs.txt", "1 14 40.0", "1 14 ٤٠", "image id, part id"),
    ],
)
def test_cub(tmp_path: Path, file: str, old: str, new: str, match: str) -> None:
    root = write_cub(tmp_path / "cub", BIRDS, train=[1])
    line(root, file, old, new)
    with pytest.raises(AnnotationError, match=match):
        PartsView().rows(datasets.load("cub", "cub", root, "all"))


def test_cub_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "cub", BIRDS, train=[1])
    expected = PartsView().rows(datasets.load("cub", "cub", root, "all"))
    for file in root.rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert PartsView().rows(datasets.load("cub", "cub", root, "all")).equals(expected)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["annotations"][0].update(id=None), r"id: .*found None"),
        (lambda c: c["annotations"][0].update(id="7"), r"id: .*found '7'"),
        (lambda c: c["annotations"].append(1), "holds no person keypoints"),
        (lambda c: c["images"][0].update(id=10**30), r"images\[0\].id: .*less than"),
        (lambda c: c["annotations"][0].update(image_id=1.0), r"image_id: .*found 1.0"),
        (lambda c: c["annotations"][0]["keypoints"].__setitem__(0, 1e10), "within ±1,000,000"),
        (lambda c: c["images"][0].update(file_name=None), r"file_name: .*found None"),
        (lambda c: c["images"][0].update(file_name=3), r"file_name: .*found 3"),
        (lambda c: c["images"][0].update(file_name=""), r"file_name: .*found ''"),
        (lambda c: c["images"][0].update(file_name="../a.jpg"), "not a path below the root"),
        (lambda c: c["images"][0].update(file_name="a\nb.jpg"), "not a path below the root"),
        (lambda c: c["images"][0].update(width=0), r"width: .*found 0"),
        (lambda c: c["images"][0].update(width="100"), r"width: .*found '100'"),
        (lambda c: c["images"][0].update(height=100.5), r"height: .*found 100.5"),
        (lambda c: c["images"][0].update(id=11.5), r"id: .*found 11.5"),
        (lambda c: c["images"][0].update(file_name="a\x9bb.jpg"), "not a path below the root"),
        (lambda c: c["annotations"][0]["keypoints"].__setitem__(0, True), "true or false"),
        (
            lambda c: c["annotations"][0].update(category_id=2),
            "1 annotations are not of the category 1, which has the keypoints; the first is "
            "annotation 5 of category 2",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=None),
            r"annotations\[0\].category_id: .*found None",
        ),
        (
            lambda c: c["annotations"][0].pop("category_id"),
            r"annotations\[0\].category_id: Field required",
        ),
        (
            lambda c: c["categories"].append({**c["categories"][0], "id": 2}),
            r"keypoints of a person have the ids \[1, 2\]. Expected: one category",
        ),
        (
            lambda c: c["annotations"][0].update(keypoints=[10**400] * 51),
            "not have the format of COCO .OverflowError",
        ),
    ],
)
def test_coco(tmp_path: Path, change: Change, match: str) -> None:
    points = {"nose": (40.0, 30.0, 2), "right_wrist": (20.0, 20.0, 2)}
    content = coco_json(2, [person(5, 1, points), person(6, 2, points)])
    root = write_coco(tmp_path / "coco", content)
    change(content)
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=match):
        PartsView().rows(datasets.load("coco", "coco", root, "val2017"))


def test_coco_nested_without_end(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", coco_json(1, []))
    (root / "annotations" / "person_keypoints_val2017.json").write_text("[" * 200_000)
    with pytest.raises(PaError, match=r"nested too deeply|is not JSON"):
        datasets.load("coco", "coco", root, "val2017")


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [({"image_id": 1, "id": 1, "caption": "a"}, "captions"),
     ({"image_id": 1, "segments_info": [{"id": 1}], "file_name": "a.png"}, "panoptic")],
)  # fmt: skip
@pytest.mark.parametrize("categories", [None, [{"id": 1, "name": "person"}]])
def test_other_coco_files_are_identified(
    tmp_path: Path, annotation: dict[str, Any], kind: str, categories: object
) -> None:
    content: dict[str, Any] = {"images": [], "annotations": [annotation], "categories": categories}
    root = write_coco(tmp_path, content)
    with pytest.raises(AnnotationError, match=rf"\(it looks like {kind}_\*\.json\)"):
        datasets.load("coco", "coco", root, "val2017")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("{}".encode("utf-16"), "in UTF-8: it is UTF-16: save it as UTF-8"),
        (gzip.compress(b"{}", mtime=0), "in UTF-8: it is compressed by gzip: unpack it"),
        ('{"é": 1}'.encode("latin-1"), "in UTF-8: byte 2 is 0xe9: save it as UTF-8"),
        (None, "cannot be read: Is a directory"),
    ],
    ids=["utf-16", "gzip", "latin-1", "directory"],
)
def test_undecodable_coco_files_are_refused(tmp_path: Path, data: bytes | None, match: str) -> None:
    root = write_coco(tmp_path, coco_json(1, []))
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.unlink()
    file.mkdir() if data is None else file.write_bytes(data)
    with pytest.raises(AnnotationError, match=match):
        datasets.load("coco", "coco", root, "val2017")


def test_coco_annotations_that_are_a_link_in_a_circle(tmp_path: Path) -> None:
    root = write_coco(tmp_path, coco_json(1, []))
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(AnnotationError, match="cannot be read: Too many levels of symbolic links"):
        datasets.load("coco", "coco", root, "val2017")


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path, coco_json(1, []))
    for name in ("", ".", ".."):
        (root / "annotations" / f"person_keypoints_{name}.json").write_text("{}")
    assert datasets.DATASETS["coco"].splits(root) == ["val2017"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_cub_split_of_an_image_that_is_not_listed(tmp_path: Path, split: str) -> None:
    root = write_cub(tmp_path / "cub", BIRDS, train=[1])
    line(root, "train_test_split.txt", "1 1\n", "1 1\n77 0\n")
    with pytest.raises(
        AnnotationError, match=r"split.txt, line 2: image 77 is not in images.txt \(1 such"
    ):
        datasets.load("cub", "cub", root, split)


def test_boxes_that_are_too_large_to_cut_are_counted(tmp_path: Path) -> None:
    """Keypoints outside the image, which only `outside=keep` takes."""
    birds = [{"tail": (0.0, 0.0), "left wing": (0.0, 10_002.0), "right leg": (0.0, 15_000.0)}]
    images = datasets.load("cub", "cub", write_cub(tmp_path / "cub", birds), "all")
    counts = PartsView(outside="keep").select(images).counts
    assert counts.skipped["box too large"]["tail"] == 1
    assert (counts.kept["left wing"], counts.kept["right leg"]) == (1, 1)  # d = 4998


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"parts": None}, "names with commas"),
        ({"parts": [1]}, "names with commas"),
        ({"resize": 100_000}, "from 224 to 3,584"),
        ({"max_d": float("inf")}, "Expected: a number from 0"),
        ({"min_d": float("nan")}, "Expected: a number from 0"),
        ({"min_d": 10**400}, "Expected: a number from 0 to 1,000,000"),
    ],
)
def test_rules_of_parts(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        PartsView(**fields)


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (" ", "begins or ends with a space"),
        ("eye ", "begins or ends with a space"),
        ("e\x1b[31mye", "control character"),
        ("x" * 100_000, "longer than 200 characters"),
    ],
)
def test_labels_of_boxes(tmp_path: Path, image_tree: Any, label: str, match: str) -> None:
    root = image_tree(1, 1)
    table = tmp_path / "b.csv"
    table.write_text(f'path,x0,y0,x1,y1,label\nclass0/0.png,1,1,9,9,"{label}"\n')
    images = datasets.load("photos", "folder", root, "all", table)
    with pytest.raises(AnnotationError, match=match):
        PartsView(side="given").rows(images)


def test_distant_corner_is_refused(tmp_path: Path, image_tree: Any) -> None:
    root = image_tree(1, 1)
    table = tmp_path / "b.csv"
    table.write_text("path,x0,y0,x1,y1,label\nclass0/0.png,1e10,1,10000000009,9,eye\n")
    with pytest.raises(AnnotationError, match="beyond ±1,000,000"):
        PartsView(side="given").rows(datasets.load("photos", "folder", root, "all", table))


def test_title_is_shortened_to_width() -> None:
    text = fit("wide " * 50_000, 8, 2.0)
    assert text.endswith("…")
    assert 10 < len(text) < 60
    assert fit("narrow", 8, 2.0) == "narrow"
