"""Building index PNGs from official releases in miniature, and reading the trees back."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pa.data import datasets
from pa.data.datasets.segmentation import ade20k, labels, lip, masks, pascal, tree
from pa.data.datasets.segmentation.ade20k import parse_atr, parse_json
from pa.data.datasets.segmentation.build import BuildPlan, SplitReport, build, place_image
from pa.data.datasets.segmentation.labels import LabelSet
from pa.data.files import locked_partial, partial_path, write_json
from pa.errors import (
    AnnotationError,
    FingerprintError,
    MismatchError,
    MissingError,
    StorageError,
    UsageError,
)
from tests.support.segmentation_trees import (
    BUILDING,
    CAR,
    CROSSWALK,
    DOOR,
    RIM,
    ROAD,
    SIZE,
    SKY,
    WHEEL,
    WINDOW,
    ade_image,
    canvas,
    index_tree,
    lip_image,
    pascal_mat,
    rgb_of,
    voc_lists,
)

WHOLE = (0, 0, *SIZE)


def value(label_set: LabelSet, name: str) -> int:
    return next(c.value for c in label_set.classes if c.name == name)


def built(plan: BuildPlan, out: Path, split: str, name: str) -> Any:
    build(plan, out)
    return masks.read_index(out / "ann" / split / f"{name}.png")


# -- ADE20K -----------------------------------------------------------------------------------

# A car on the left with a door, a window in the door, a wheel with its rim; road on the right with
# a crosswalk; a wheel that lies on the road belongs to no object of the 59.
SEG = canvas(((0, 0, 8, 8), CAR), ((8, 0, 12, 8), ROAD))
LEVEL1 = canvas(
    ((0, 0, 4, 4), DOOR), ((0, 4, 4, 8), WHEEL), ((8, 0, 12, 4), CROSSWALK), ((8, 4, 12, 8), WHEEL)
)
LEVEL2 = canvas(((0, 0, 2, 2), WINDOW), ((1, 5, 3, 7), RIM), ((2, 2, 4, 4), CROSSWALK))
ATR = """001 # 0 # 0 # car, auto, automobile, machine, motorcar # car # ""
002 # 0 # 1 # road, route # road # "wet # dark"
001 # 1 # 0 # door # door # ""
002 # 1 # 0 # wheel # wheel # ""
001 # 2 # 0 # window # window # ""
002 # 2 # 0 # rim # rim # ""
001 # 1 # 0 # crosswalk # zebra crossing # ""
001 # 2 # 0 # crosswalk # zebra crossing # ""
"""


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ade"
    ade_image(root, "ADE_train_00000001", SEG, LEVEL1, LEVEL2, atr=ATR)
    ade_image(root, "ADE_train_00000002", canvas((WHOLE, SKY)))
    ade_image(root, "ADE_train_00020211", SEG, LEVEL1)
    ade_image(root, "ADE_val_00000001", canvas((WHOLE, BUILDING)), canvas(((0, 0, 3, 3), WINDOW)))
    (root / "images" / "training" / "ADE_train_00000001").mkdir()  # instance masks of 2021
    (root / "images" / "training" / "ADE_train_00000001" / "ADE_train_00000009.jpg").write_bytes(
        b""
    )
    return root


def test_deepest_listed_part_wins(ade: Path, tmp_path: Path) -> None:
    parts = labels.load("ade20k-part")
    actual = built(ade20k.plan("ade20k-part", ade), tmp_path / "out", "train", "ADE_train_00000001")
    door, window, wheel, rim = (value(parts, n) for n in ("door", "window", "wheel", "rim"))
    expected = canvas(
        ((0, 0, 4, 4), door), ((0, 4, 4, 8), wheel), ((0, 0, 2, 2), window), ((1, 5, 3, 7), rim)
    )  # the crosswalk at level 2 is not listed: the door shows through; the road has no parts
    assert np.array_equal(actual, expected)


def test_report_counts_built_images(ade: Path, tmp_path: Path) -> None:
    train, val = build(ade20k.plan("ade20k-part", ade), tmp_path / "out")
    assert (train.split, train.n_images, train.present, train.all_zero) == (
        "train",
        2,
        4,
        ["ADE_train_00000002"],
    )
    assert (val.split, val.n_images, val.present) == ("val", 1, 1)
    written = json.loads((tmp_path / "out" / "report-train.json").read_text())
    assert written["images"] == 2
    assert written["all_zero"] == ["ADE_train_00000002"]
    assert {c["name"]: c["pixels"] for c in written["classes"] if c["pixels"]} == {
        "door": 12,
        "rim": 4,
        "wheel": 12,
        "window": 4,
    }
    assert written["labels"]["sha256"] == labels.load("ade20k-part").sha256
    assert written["notes"] == ["train: 1 images above number 20210 skipped"]


def test_objects_of_the_full_release_are_an_own_rule(ade: Path, tmp_path: Path) -> None:
    objects = labels.load("ade20k-object")
    plan = ade20k.plan("ade20k-object", ade, rule="seg")
    actual = built(plan, tmp_path / "out", "train", "ADE_train_00000001")
    assert np.array_equal(actual, canvas(((0, 0, 8, 8), value(objects, "car"))))
    assert plan.rule.startswith("seg:")


def test_scene_parsing_becomes_59_objects(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for folder in ("images", "annotations"):
        (root / folder / "validation").mkdir(parents=True)
    Image.new("RGB", (4, 1)).save(root / "images/validation/ADE_val_00000001.jpg")
    path = root / "annotations/validation/ADE_val_00000001.png"
    Image.fromarray(np.array([[0, 2, 149, 1]], np.uint8)).save(path)
    actual = built(ade20k.plan("ade20k-object", root), tmp_path / "o", "val", "ADE_val_00000001")
    assert actual.tolist() == [[0, 1, 59, 0]]  # building, clock; a wall is not an object
    actual = built(ade20k.plan("ade20k", root), tmp_path / "s", "val", "ADE_val_00000001")
    assert actual.tolist() == [[0, 2, 149, 1]]
    Image.fromarray(np.array([[0, 2, 151, 1]], np.uint8)).save(path)
    (report,) = build(ade20k.plan("ade20k", root), tmp_path / "t")
    assert "unknown class ids 151: the label set has 150 classes" in report.faults[0][1]


def test_faulty_images_are_left_out_and_named(ade: Path, tmp_path: Path) -> None:
    folder = ade / "images" / "training" / "s" / "street"
    (folder / "ADE_train_00000001_seg.png").unlink()
    ade_image(ade, "ADE_train_00000003", SEG, LEVEL1)
    Image.new("RGB", (5, 5)).save(folder / "ADE_train_00000003_parts_1.png")
    ade_image(ade, "ADE_train_00000004", SEG)
    Image.new("RGB", (13, 8)).save(folder / "ADE_train_00000004.jpg")
    ade_image(ade, "ADE_train_00000005", SEG)
    seg = folder / "ADE_train_00000005_seg.png"
    seg.write_bytes(seg.read_bytes()[:-30])
    ade_image(ade, "ADE_train_00000006", SEG, atr="nonsense")
    ade_image(ade, "ADE_train_00000007", SEG)
    (folder / "ADE_train_00000007.jpg").write_bytes(b"torn")
    train, _ = build(ade20k.plan("ade20k-part", ade), tmp_path / "out")
    faults = dict(train.faults)
    assert train.n_images == 1
    assert "ADE_train_00000001_seg.png is not next to it" in faults["ADE_train_00000001"]
    assert "parts_1.png: the mask is 5x5, its image 12x8 pixels" in faults["ADE_train_00000003"]
    assert "the mask is 12x8, its image 13x8 pixels" in faults["ADE_train_00000004"]
    assert "seg.png: OSError" in faults["ADE_train_00000005"]
    assert "atr.txt, line 1: expected `instance # part level" in faults["ADE_train_00000006"]
    assert "ADE_train_00000007.jpg: not an image" in faults["ADE_train_00000007"]
    assert not (tmp_path / "out/img/train/ADE_train_00000001.jpg").exists()


def json_of(*objects: tuple[int, str, int]) -> str:
    entries = [
        {
            "name": name,
            "name_ndx": number,
            "parts": {"part_level": level, "ispartof": [], "hasparts": 3},
        }
        for level, name, number in objects
    ]
    return json.dumps({"annotation": {"object": entries}})


def test_release_with_other_numbers_is_refused(ade: Path, tmp_path: Path) -> None:
    path = ade / "images/training/s/street/ADE_train_00000002.json"
    path.write_text(json_of((0, "sky", SKY), (1, "no class of ours", 4000)))
    build(ade20k.plan("ade20k-part", ade), tmp_path / "good")
    for name, number, listed in (
        ("person", SKY, "2420 is 'sky'"),
        ("sky", 17, "'sky' has another"),
    ):
        path.write_text(json_of((0, name, number)))
        with pytest.raises(MismatchError, match=f"'{name}' has the number {number}.*{listed}"):
            build(ade20k.plan("ade20k-part", ade), tmp_path / f"bad-{number}")


def test_masks_that_show_what_the_text_does_not_name(ade: Path, tmp_path: Path) -> None:
    path = ade / "images/training/s/street/ADE_train_00000001_atr.txt"
    path.write_text(ATR.replace("002 # 2 # 0 # rim # rim", "002 # 1 # 0 # rim # rim"))
    train, _ = build(ade20k.plan("ade20k-part", ade), tmp_path / "out")
    file = "ADE_train_00000001_atr.txt"
    assert train.notes == [
        ("ADE_train_00000001", f"level 1, instances in the mask against {file}: rim 0 against 1"),
        ("ADE_train_00000001", f"level 2, instances in the mask against {file}: rim 1 against 0"),
    ]


def test_json_of_the_wrong_kind() -> None:
    for text in (
        '{"images": [], "annotations": []}',
        "[1, 2]",
        '{"annotation": {"object": [{"name": "x"}]}}',
    ):
        with pytest.raises(
            AnnotationError,
            match=r"not an annotation of ADE20K 2021_17_01: expected annotation\.object",
        ):
            parse_json(text, Path("x.json"))
    with pytest.raises(AnnotationError, match=r"x.json is not JSON"):
        parse_json("{", Path("x.json"))


def test_atr_lines() -> None:
    entries = parse_atr(ATR, Path("x_atr.txt"))
    assert len(entries) == 8
    assert (entries[1].level, entries[1].name, entries[1].number) == (0, "road, route", None)
    assert (entries[4].level, entries[4].name) == (2, "window")


def test_atr_lines_in_other_letters() -> None:
    """A line in UTF-8, read as latin-1, holds a byte that ends a line in Unicode."""
    text = '001 # 1 # 0 # door # "Ångström" # ""'.encode().decode("latin-1")
    assert [entry.name for entry in parse_atr(f"{text}\r\n", Path("x"))] == ["door"]
    for level in ("²", "1_0", "99999", "-1", ""):
        with pytest.raises(AnnotationError, match=r"line 1: expected `instance # part level"):
            parse_atr(f"001 # {level} # 0 # door # door # ", Path("x_atr.txt"))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000])
def test_brackets_without_end(text: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"x.json .*JSON are nested too deeply"):
        parse_json(text, Path("x.json"))
    (tmp_path / "build.json").write_text(text)
    with pytest.raises(AnnotationError, match=r"build.json .*JSON are nested too deeply"):
        tree.read_build(tmp_path)


def test_numbers_beyond_all_bounds_in_json() -> None:
    first = '{"name": "x", "name_ndx": 1e999, "parts": {"part_level": 0}}'
    with pytest.raises(AnnotationError, match="not an annotation of ADE20K 2021_17_01"):
        parse_json(f'{{"annotation": {{"object": [{first}]}}}}', Path("x.json"))


def test_other_folder_tree_is_not_a_release(tmp_path: Path) -> None:
    index_tree(tmp_path, "train", {"ADE_train_00000001": [[1]]})
    for dataset in ("ade20k-part", "ade20k-object"):
        with pytest.raises(MissingError, match=r"Expected there:\n  <root>/"):
            ade20k.plan(dataset, tmp_path / "img")


# -- Pascal -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (6.5, "an object is of class 6.5"),
        (np.inf, "cannot convert float infinity"),
        (np.nan, "cannot convert float NaN"),
        ("bus", "invalid literal for int"),
    ],
)
def test_non_numeric_classes_are_refused(tmp_path: Path, number: Any, message: str) -> None:
    entry = {"class": "bus", "class_ind": number, "mask": np.ones((2, 2)), "parts": np.array([])}
    savemat(tmp_path / "a.mat", {"anno": {"objects": entry}})
    with pytest.raises(AnnotationError, match=rf"a.mat: not a file of Pascal-Part: {message}"):
        pascal.read_mat(tmp_path / "a.mat")


def test_mat_file_of_version_7_3_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    with pytest.raises(
        AnnotationError, match=r"a.mat: a MATLAB file of version 7.3. Expected: the"
    ):
        pascal.read_mat(file)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "pascal"
    bus = (
        6,
        "bus",
        (0, 0, 8, 8),
        [
            ("bliplate", (1, 1, 3, 2)),
            ("leftside", (0, 0, 8, 4)),
            ("wheel_1", (0, 6, 2, 8)),
            ("wheel_2", (4, 6, 6, 8)),
        ],
    )
    person = (15, "person", (6, 2, 12, 8), [("head", (6, 2, 9, 5)), ("hair", (6, 2, 9, 3))])
    chair = (9, "chair", (0, 6, 4, 8), [])
    pascal_mat(root, "2008_000001", bus, person, chair)
    pascal_mat(root, "2008_000002", (4, "boat", (0, 0, 5, 5), []))
    voc_lists(root, train=["2008_000001", "2008_000099"], val=["2008_000002"])
    return root


def test_parts_are_drawn_in_file_order(voc: Path, tmp_path: Path) -> None:
    parts = labels.load("pascal-part")
    side, wheel, licence_plate, head, hair = (
        value(parts, n)
        for n in ("bus leftside", "bus wheel", "bus bliplate", "person head", "person hair")
    )
    later = [
        ((0, 6, 2, 8), wheel),
        ((4, 6, 6, 8), wheel),
        ((6, 2, 9, 5), head),
        ((6, 2, 9, 3), hair),
    ]
    actual = built(
        pascal.plan("pascal-part", voc, None, None), tmp_path / "f", "train", "2008_000001"
    )
    assert np.array_equal(actual, canvas(((0, 0, 8, 4), side), *later))  # the side hides the plate
    plan = pascal.plan("pascal-part", voc, None, "area")
    actual = built(plan, tmp_path / "a", "train", "2008_000001")
    assert np.array_equal(
        actual, canvas(((0, 0, 8, 4), side), ((1, 1, 3, 2), licence_plate), *later)
    )


def test_objects_are_silhouettes_and_a_removed_class_erases(voc: Path, tmp_path: Path) -> None:
    objects = labels.load("pascal-object")
    bus, person = value(objects, "bus"), value(objects, "person")
    plan = pascal.plan("pascal-object", voc, None, None)
    actual = built(plan, tmp_path / "o", "train", "2008_000001")
    expected = canvas(((0, 0, 8, 8), bus), ((6, 2, 12, 8), person), ((0, 6, 4, 8), 0))
    assert np.array_equal(actual, expected)


def test_splits_are_those_of_voc2010(voc: Path, tmp_path: Path) -> None:
    train, val = build(pascal.plan("pascal-part", voc, None, None), tmp_path / "out")
    assert (train.n_images, val.n_images) == (1, 1)
    assert val.all_zero == ["2008_000002"]  # a boat has no parts
    assert train.plan.notes == ("train: 1 images of VOC2010 have no .mat",)
    (voc / "JPEGImages").replace(tmp_path / "JPEGImages")
    with pytest.raises(
        MissingError,
        match=r"no folder JPEGImages in .*: give the images of VOC2010 with --images DIR",
    ):
        pascal.plan("pascal-part", voc, None, None)
    assert list(pascal.plan("pascal-part", voc, tmp_path, None).splits) == ["all"]  # without lists


def test_annotations_outside_lists_are_counted(voc: Path, tmp_path: Path) -> None:
    for name in ("2008_000003", "2008_000004"):
        pascal_mat(voc, name, (4, "boat", (0, 0, 5, 5), []))
    notes = pascal.plan("pascal-part", voc, None, None).notes
    assert notes[-1] == (
        "2 .mat files belong to no image in VOC2010's lists and are skipped, such as 2008_000003.mat"
    )
    (voc / "ImageSets/Main/val.txt").unlink()
    assert pascal.plan("pascal-part", voc, None, None).notes[-1].startswith("3 .mat files belong")


def test_lists_of_voc2010_that_are_not_right(voc: Path) -> None:
    file = voc / "ImageSets/Main/val.txt"
    file.write_text("2008_000002\n2008_000099\n2008_000001\n")
    with pytest.raises(
        AnnotationError, match=r"train.txt and val.txt: 2008_000001 is in both, and 2 such images"
    ):
        pascal.plan("pascal-part", voc, None, None)
    file.write_text("\n \n")
    with pytest.raises(MissingError, match=r"val.txt holds no image id. Expected: the list of the"):
        pascal.plan("pascal-part", voc, None, None)


def test_unlisted_part_is_reported(tmp_path: Path) -> None:
    pascal_mat(tmp_path, "2008_000001", (9, "chair", WHOLE, [("leg_1", WHOLE)]))
    (report,) = build(pascal.plan("pascal-part", tmp_path, None, None), tmp_path / "out")
    assert (
        "chair (class 9) has the part 'leg_1', which is not in the list of 193 parts"
        in report.faults[0][1]
    )


def test_files_that_are_not_pascal_part(tmp_path: Path) -> None:
    from scipy.io import savemat

    path = tmp_path / "x.mat"
    path.write_text("hello, this is not a MATLAB file, whatever its name")
    with pytest.raises(AnnotationError, match=r"x.mat: not a MATLAB file"):
        pascal.read_mat(path)
    savemat(path, {"index": np.zeros(3), "scores": np.ones(2)})
    with pytest.raises(
        AnnotationError,
        match="not a file of Pascal-Part: expected the variable `anno` with objects; found index, scores",
    ):
        pascal.read_mat(path)
    savemat(path, {"anno": {"objects": {"class": "car", "class_ind": 7}}})
    with pytest.raises(AnnotationError, match=r"not a file of Pascal-Part: .*mask"):
        pascal.read_mat(path)
    with pytest.raises(AnnotationError, match="no such file"):
        pascal.read_mat(tmp_path / "y.mat")
    with pytest.raises(MissingError, match="no Pascal-Part in"):
        pascal.plan("pascal-part", tmp_path, None, None)


# -- LIP --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_lip_in_both_nestings(tmp_path: Path, nested: bool) -> None:
    root = tmp_path / "LIP"
    values = canvas(((0, 0, 4, 4), 13), ((4, 0, 8, 8), 19))
    lip_image(root, "train", "100_1", values, nested)
    lip_image(root, "train", "200_2", values, nested)
    lip_image(root, "val", "300_3", canvas(), nested)
    (root / "TrainVal_images" / "train_id.txt").write_text("100_1\n")
    train, val = build(lip.plan("lip", root), tmp_path / "out")
    assert (train.n_images, train.present, val.n_images, val.all_zero) == (1, 2, 1, ["300_3"])
    actual = masks.read_index(tmp_path / "out" / "ann" / "train" / "100_1.png")
    assert np.array_equal(actual, values)
    # The official tree is read without a build, too.
    official = datasets.load("lip", "lip", root, "val")
    assert official.table.select("width", "height").rows() == [SIZE]
    assert official.table["mask"][0].endswith("val_segmentations/300_3.png")


def test_lip_values_above_19(tmp_path: Path) -> None:
    lip_image(tmp_path, "val", "1_1", canvas(((0, 0, 2, 2), 20)))
    (report,) = build(lip.plan("lip", tmp_path), tmp_path / "out")
    assert "unknown class ids 20: the label set has 19 classes" in report.faults[0][1]
    with pytest.raises(MissingError, match=r"no LIP in .*TrainVal_images"):
        lip.plan("lip", tmp_path / "TrainVal_images")


def test_lip_images_of_any_suffix(tmp_path: Path) -> None:
    root, folder = tmp_path / "LIP", tmp_path / "LIP/TrainVal_images/train_images"
    for name, suffix in (("1_1", ".jpg"), ("2_2", ".jpeg"), ("3_3", ".JPG"), ("4_4", ".png")):
        lip_image(root, "train", name, canvas())
        (folder / f"{name}.jpg").rename(folder / f"{name}{suffix}")
    (report,) = build(lip.plan("lip", root), tmp_path / "out")
    assert (report.n_images, report.faults) == (4, [])
    images = datasets.load("lip", "lip", tmp_path / "out").table["path"]
    assert [Path(path).name for path in images] == ["1_1.jpg", "2_2.jpeg", "3_3.JPG", "4_4.png"]

    (root / "TrainVal_images/train_id.txt").write_text("2_2\n3_3\n9_9\n")
    (report,) = build(lip.plan("lip", root), tmp_path / "listed")
    assert report.n_images == 2
    assert "train_images/9_9.jpg: No such file" in report.faults[0][1]
    assert report.plan.notes == (
        "train: 2 images of the folder are not in train_id.txt and are skipped, such as 1_1.jpg",
    )
    (folder / "2_2.png").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"train has 2 images named 2_2: .*2_2.jpeg and"):
        build(lip.plan("lip", root), tmp_path / "double")


def test_lip_masks_that_are_none(tmp_path: Path) -> None:
    values = canvas(((0, 0, 4, 4), 13))
    folder = tmp_path / "TrainVal_parsing_annotations/val_segmentations"
    for name in ("colour", "rgba", "grey", "deep", "torn", "gone", "text"):
        lip_image(tmp_path, "val", name, values)
    Image.new("RGB", SIZE).save(folder / "colour.png")
    Image.new("RGBA", SIZE).save(folder / "rgba.png")
    Image.fromarray(values.astype(np.uint8)).save(folder / "grey.png")  # no palette: as good
    Image.fromarray(values.astype(np.uint16)).save(folder / "deep.png")
    torn = (folder / "torn.png").read_bytes()
    (folder / "torn.png").write_bytes(torn[:-30])
    (folder / "gone.png").unlink()
    (folder / "text.png").write_text("mask")
    (report,) = build(lip.plan("lip", tmp_path), tmp_path / "out")
    assert report.n_images == 1
    actual = masks.read_index(tmp_path / "out/ann/val/grey.png")
    assert np.array_equal(actual, values)
    faults = dict(report.faults)
    for name, reason in (
        ("colour", "expected a label map with one 8-bit channel; found mode RGB"),
        ("rgba", "found mode RGBA of 12x8 pixels"),
        ("deep", "found mode I;16"),
        ("torn", "torn.png: "),
        ("gone", "gone.png: no such file"),
        ("text", "text.png: not an image of a known format"),
    ):
        assert reason in faults[name]


# -- the tree ---------------------------------------------------------------------------------


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*.png"))
    }


def test_repeated_build_draws_missing_masks_only(ade: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = ade20k.plan("ade20k-part", ade)
    first = build(plan, out)
    before = files(out)
    (out / "ann/train/ADE_train_00000001.png").unlink()
    (out / "ann/val/ADE_val_00000001.png").write_bytes(b"torn")
    again = build(plan, out)
    assert [report.n_rasterized for report in first] == [2, 1]
    assert [report.n_rasterized for report in again] == [1, 1]
    assert {name: data for name, (_, data) in files(out).items()} == {
        name: data for name, (_, data) in before.items()
    }
    kept = "ann/train/ADE_train_00000002.png"
    assert files(out)[kept] == before[kept]

    def counts(reports: list[SplitReport]) -> list[list[int]]:
        return [report.pixels.tolist() for report in reports]

    assert counts(first) == counts(again)
    assert not list(out.rglob("*.partial"))


def test_building_again_knows_the_notes_of_before(ade: Path, tmp_path: Path) -> None:
    path = ade / "images/training/s/street/ADE_train_00000001_atr.txt"
    path.write_text(ATR.replace("002 # 2 # 0 # rim # rim", "002 # 1 # 0 # rim # rim"))
    out = tmp_path / "out"
    build(ade20k.plan("ade20k-part", ade), out)
    report = (out / "report-train.json").read_bytes()
    assert b"_atr.txt: rim 1 against 0" in report
    (again, _) = build(ade20k.plan("ade20k-part", ade), out)
    assert again.n_rasterized == 0
    assert (out / "report-train.json").read_bytes() == report


KILLED = """
import os, signal, sys
from pathlib import Path
import pa.data.files
from pa.data.datasets.segmentation import ade20k, build

root, out, where, name, calls = sys.argv[1:]
module = {"files": pa.data.files, "build": build}[where]
whole, left = getattr(module, name), int(calls)

def deadly(*given, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*given, **options)

setattr(module, name, deadly)
build.build(ade20k.plan("ade20k-part", Path(root)), Path(out), copy=True, workers=2)
"""


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        ("files", "sync", 4),  # a mask is written and not yet renamed
        ("files", "sync", 9),
        ("build", "write_png", 1),
        ("build", "place_image", 0),  # a mask without its image
        ("build", "place_image", 2),
        ("build", "write_json", 1),  # all but the report
    ],
)
def test_killed_build_resumes_to_same_tree(
    ade: Path, tmp_path: Path, module: str, name: str, calls: int
) -> None:
    path = ade / "images/training/s/street/ADE_train_00000001_atr.txt"
    path.write_text(ATR.replace("002 # 2 # 0 # rim # rim", "002 # 1 # 0 # rim # rim"))
    plan = ade20k.plan("ade20k-part", ade)
    build(plan, tmp_path / "undisturbed", copy=True)
    words = [str(ade), str(tmp_path / "out"), module, name, str(calls)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert killed.returncode == -signal.SIGKILL
    build(plan, tmp_path / "out", copy=True)

    def content(root: Path) -> dict[str, bytes]:
        files = [path for path in root.rglob("*") if path.is_file()]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_full_disk_is_reported_and_leaves_no_partial_file(
    ade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan, out = ade20k.plan("ade20k-part", ade), tmp_path / "out"
    for name in ("shutil.copyfile", "pathlib.Path.symlink_to"):
        monkeypatch.setattr(name, full)
        with pytest.raises(StorageError, match=r"no space left while writing .*/img/train/ADE_"):
            build(plan, out, copy=name == "shutil.copyfile")
    monkeypatch.undo()
    assert not list(out.rglob("*.partial"))
    assert [report.n_images for report in build(plan, out)] == [2, 1]


def test_masks_of_unknown_classes_are_rebuilt(ade: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = ade20k.plan("ade20k-part", ade)
    build(plan, out)
    path = out / "ann/train/ADE_train_00000001.png"
    before = path.read_bytes()
    Image.fromarray(np.full(SIZE[::-1], 210, np.uint8)).save(path)
    assert build(plan, out)[0].n_rasterized == 1
    assert path.read_bytes() == before


def test_partial_files_of_killed_builders_are_removed(ade: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = ade20k.plan("ade20k-part", ade)
    build(plan, out)
    path = out / "ann/train/ADE_train_00000002.png"
    partial_path(path).touch()
    partial_path(out / "img/train/ADE_train_00000002.jpg").symlink_to("nowhere")
    with locked_partial(path) as current:
        build(plan, out)
        assert [path.name for path in out.rglob("*.partial")] == [current.name]


def test_concurrent_builds_of_different_datasets_are_refused(
    ade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them writes build.json after the other has found none."""
    out = tmp_path / "out"
    plans = [ade20k.plan("ade20k-part", ade), ade20k.plan("ade20k-object", ade, rule="seg")]

    def late(*args: Any, **options: Any) -> None:
        monkeypatch.undo()
        build(plans[0], out)
        write_json(*args, **options)

    monkeypatch.setattr("pa.data.datasets.segmentation.build.write_json", late)
    with pytest.raises(
        FingerprintError, match=r"built differently .*dataset ade20k-part → ade20k-object"
    ):
        build(plans[1], out)
    assert json.loads((out / "build.json").read_text())["dataset"] == "ade20k-part"


def test_folder_not_built_by_pa_is_refused(ade: Path, tmp_path: Path) -> None:
    out = index_tree(tmp_path / "out", "train", {"ADE_train_00000001": canvas()})
    with pytest.raises(
        FingerprintError, match=r"holds ann/ but no build.json: it was not built by pa"
    ):
        build(ade20k.plan("ade20k-part", ade), out)


def test_tree_has_one_recipe(ade: Path, tmp_path: Path) -> None:
    build(ade20k.plan("ade20k-part", ade), tmp_path / "out")
    with pytest.raises(
        FingerprintError, match=r"was built differently .*dataset ade20k-part → ade20k-object"
    ):
        build(ade20k.plan("ade20k-object", ade, rule="seg"), tmp_path / "out")


def test_tree_has_one_release(ade: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    build(ade20k.plan("ade20k-part", ade), out)
    shutil.copytree(ade, other)
    with pytest.raises(FingerprintError, match=r"was built from .*/ade, not from .*/other: masks"):
        build(ade20k.plan("ade20k-part", other), out)
    shutil.rmtree(other)
    ade.rename(other)  # the same release in another place
    reports = build(ade20k.plan("ade20k-part", other), out)
    assert [report.n_rasterized for report in reports] == [0, 0]
    other.rename(ade)
    (tmp_path / "link").symlink_to(ade)
    build(ade20k.plan("ade20k-part", tmp_path / "link"), out)


def test_rules_that_differ_are_shown_where_they_do(ade: Path, tmp_path: Path) -> None:
    plan = ade20k.plan("ade20k-part", ade)
    rule = "the same beginning, " * 30
    build(replace(plan, rule=f"{rule}coarse {'and so on ' * 30}"), tmp_path / "out")
    with pytest.raises(FingerprintError) as caught:
        build(replace(plan, rule=f"{rule}fine"), tmp_path / "out")
    assert "rule …ame beginning, coarse and so on" in str(caught.value)
    assert "… → …ame beginning, fine." in str(caught.value)
    assert len(str(caught.value)) < 250 + 2 * len(str(tmp_path))


def test_images_are_linked_or_copied(ade: Path, tmp_path: Path) -> None:
    plan = ade20k.plan("ade20k-part", ade)
    build(plan, tmp_path / "links")
    build(plan, tmp_path / "copies", copy=True)
    image = "img/train/ADE_train_00000001.jpg"
    assert (tmp_path / "links" / image).is_symlink()
    assert not (tmp_path / "copies" / image).is_symlink()
    assert (tmp_path / "links" / image).read_bytes() == (tmp_path / "copies" / image).read_bytes()
    build(plan, tmp_path / "links", copy=True)
    assert not (tmp_path / "links" / image).is_symlink()
    build(plan, tmp_path / "copies")
    assert not (tmp_path / "copies" / image).is_symlink()  # a copy is as good as a link


def test_links_of_another_place_are_put_right(ade: Path, tmp_path: Path) -> None:
    build(ade20k.plan("ade20k-part", ade), tmp_path / "out")
    moved = ade.rename(tmp_path / "moved")
    build(ade20k.plan("ade20k-part", moved), tmp_path / "out")
    link = tmp_path / "out/img/train/ADE_train_00000001.jpg"
    assert link.readlink() == moved / "images/training/s/street/ADE_train_00000001.jpg"


def test_concurrent_builds_write_one_image(tmp_path: Path) -> None:
    source, path = tmp_path / "a.jpg", tmp_path / "out" / "a.jpg"
    source.write_bytes(b"image")
    other = tmp_path / "b.jpg"
    other.write_bytes(b"another")
    seen = []

    def write_image(number: int) -> None:
        place_image([source, other][number % 2], path, copy=False)
        seen.append(path.read_bytes())  # there at every moment

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_image, range(400)))
    assert set(seen) == {b"image", b"another"}
    assert [file.name for file in path.parent.iterdir()] == ["a.jpg"]


def test_built_tree_is_a_dataset(ade: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(ade20k.plan("ade20k-part", ade), out)
    assert datasets.DATASETS["ade20k-part"].default_view == "windows"
    images = datasets.load("mine", "ade20k-part", out, "train")
    assert images.table.select("path", "mask", "label", "label_id", "width", "height").rows() == [
        (
            f"img/train/ADE_train_0000000{n}.jpg",
            f"ann/train/ADE_train_0000000{n}.png",
            None,
            None,
            *SIZE,
        )
        for n in (1, 2)
    ]
    assert tree.label_set("ade20k-part", out) == labels.load("ade20k-part")
    with pytest.raises(UsageError, match="was built for ade20k-part, not for pascal-part"):
        datasets.load("mine", "pascal-part", out, "train")
    (out / "ann/train/ADE_train_00000002.png").unlink()
    with pytest.raises(
        MissingError, match=r"1 of 2 images have no mask: ann/train/ADE_train_00000002.png"
    ):
        datasets.load("mine", "ade20k-part", out, "train")
    fields = json.loads((out / "build.json").read_text())
    (out / "build.json").write_text(json.dumps({**fields, "labels_sha256": "0"}))
    with pytest.raises(FingerprintError, match="another version of the label list of ade20k-part"):
        tree.label_set("ade20k-part", out)
    for report in ("[]", '{"format": 1}', json.dumps({**fields, "list": None})):
        (out / "build.json").write_text(report)
        with pytest.raises(AnnotationError, match=r"build.json: not a build report"):
            tree.label_set("ade20k-part", out)


def test_images_with_same_mask_name_are_refused(tmp_path: Path) -> None:
    root = index_tree(tmp_path, "train", {"a": canvas()})
    Image.new("RGB", SIZE).save(root / "img/train/a.png")
    with pytest.raises(AnnotationError, match=r"a.jpg and img/train/a.png have one mask, ann/tr"):
        datasets.load("mine", "pascal-part", root, "train")


def test_scene_parsing_is_not_taken_for_objects(tmp_path: Path) -> None:
    for folder in ("images", "annotations"):
        (tmp_path / folder / "validation").mkdir(parents=True)
    Image.new("RGB", (4, 1)).save(tmp_path / "images/validation/a.jpg")
    rgb_of(np.zeros((1, 4), np.int64)).save(tmp_path / "annotations/validation/a.png")
    assert datasets.load("x", "ade20k-object", tmp_path).split == "val"  # the authors' own tree
    (tmp_path / "sceneCategories.txt").write_text("")
    with pytest.raises(
        UsageError, match=r"is ADEChallengeData2016.*pa datasets build ade20k-object"
    ):
        datasets.load("x", "ade20k-object", tmp_path)


# -- real samples -----------------------------------------------------------------------------


@pytest.mark.shared
def test_ade20k_sample_is_built(shared_dir: Path, tmp_path: Path) -> None:
    """Pixel counts by the arithmetic of the levels, stated with the label lists."""
    root = shared_dir / "data" / "ADE20K_2021_17_01"
    paths = ade20k.find_release(root)["train"]
    objects = ade20k.read_objects(paths[0])
    levels = list(ade20k.read_parts(paths[0], objects.codes.shape))
    values = ade20k.rasterize_parts(objects.codes, [layer.codes for layer in levels])
    parts = labels.load("ade20k-part")
    counts = masks.count(values, 209)
    assert counts[value(parts, "door") - 1] == 3625 - 947 - 104 - 36
    assert counts[value(parts, "wheel") - 1] == 2292 - 964
    assert counts[value(parts, "window") - 1] == 5105 + 947
    for path in paths:  # every instance of every level is in the .json, and no other
        objects = ade20k.read_objects(path)
        levels = list(ade20k.read_parts(path, objects.codes.shape))
        assert ade20k.cross_check(path, objects, levels) == ()
        assert levels[0].counts().total() > 0


@pytest.mark.shared
def test_pascal_part_sample_is_built(shared_dir: Path) -> None:
    mats = {p.stem: p for p in (shared_dir / "data" / "pascal_part").rglob("*.mat")}
    assert len(mats) == 22
    objects = {name: pascal.read_mat(path) for name, path in mats.items()}
    assert sum(map(len, objects.values())) == 62
    assert sum(len(t.parts) for ts in objects.values() for t in ts) == 517
    assert len({t.voc_class for ts in objects.values() for t in ts}) == 14
    for name in ("2010_000145", "2010_001199"):  # a boat; chairs and a table
        assert not pascal.rasterize_parts(objects[name], mats[name]).any()
    licence_plate = value(labels.load("pascal-part"), "car bliplate")
    bus = objects["2008_000939"]
    assert not (pascal.rasterize_parts(bus, mats["2008_000939"]) == licence_plate).any()
    assert (pascal.rasterize_parts(bus, mats["2008_000939"], "area") == licence_plate).any()
