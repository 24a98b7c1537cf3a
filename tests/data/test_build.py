"""Building index PNGs from official releases in miniature, and reading the trees back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pa.data import datasets, labels, masks
from pa.data.datasets import ade20k, lip, pascal, tree
from pa.data.datasets.ade20k_text import parse_atr, parse_json
from pa.data.datasets.build import Plan, SplitReport, build
from pa.data.labels import LabelSet
from pa.errors import AnnotationError, FingerprintError, MismatchError, MissingError, UsageError
from tests.segmentation_trees import (
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


def built(plan: Plan, out: Path, split: str, name: str) -> Any:
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


def test_the_deepest_listed_part_wins(ade: Path, tmp_path: Path) -> None:
    parts = labels.load("ade20k-part")
    found = built(
        ade20k.plan_parts(ade, "default", None), tmp_path / "out", "train", "ADE_train_00000001"
    )
    door, window, wheel, rim = (value(parts, n) for n in ("door", "window", "wheel", "rim"))
    expected = canvas(
        ((0, 0, 4, 4), door), ((0, 4, 4, 8), wheel), ((0, 0, 2, 2), window), ((1, 5, 3, 7), rim)
    )  # the crosswalk at level 2 is not listed: the door shows through; the road has no parts
    assert np.array_equal(found, expected)


def test_alternative_level1_is_of_any_object(ade: Path, tmp_path: Path) -> None:
    parts = labels.load("ade20k-part", "level1")
    found = built(
        ade20k.plan_parts(ade, "level1", None), tmp_path / "out", "train", "ADE_train_00000001"
    )
    door, wheel, crosswalk = (value(parts, n) for n in ("door", "wheel", "crosswalk"))
    expected = canvas(
        ((0, 0, 4, 4), door),
        ((0, 4, 4, 8), wheel),
        ((8, 0, 12, 4), crosswalk),
        ((8, 4, 12, 8), wheel),
    )
    assert np.array_equal(found, expected)


def test_alternative_pairs50_is_of_objects_and_parts(ade: Path, tmp_path: Path) -> None:
    parts = labels.load("ade20k-part", "pairs50")
    plan = ade20k.plan_parts(ade, "pairs50", None)
    found = built(plan, tmp_path / "out", "train", "ADE_train_00000001")
    expected = canvas(
        ((0, 0, 4, 4), value(parts, "car door")), ((0, 4, 4, 8), value(parts, "car wheel"))
    )
    assert np.array_equal(found, expected)
    found = masks.read_index(tmp_path / "out" / "ann" / "val" / "ADE_val_00000001.png")
    assert np.array_equal(found, canvas(((0, 0, 3, 3), value(parts, "building window"))))


def test_the_report_counts_what_was_built(ade: Path, tmp_path: Path) -> None:
    train, val = build(ade20k.plan_parts(ade, "default", None), tmp_path / "out")
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
    assert written["notes"] == ["train: 1 images above number 20210 left out"]


def test_objects_of_the_full_release_are_an_own_rule(ade: Path, tmp_path: Path) -> None:
    objects = labels.load("ade20k-object")
    plan = ade20k.plan_objects(ade, "default", "seg")
    found = built(plan, tmp_path / "out", "train", "ADE_train_00000001")
    assert np.array_equal(found, canvas(((0, 0, 8, 8), value(objects, "car"))))
    assert plan.rule.startswith("seg:")


def test_scene_parsing_becomes_59_objects(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for folder in ("images", "annotations"):
        (root / folder / "validation").mkdir(parents=True)
    Image.new("RGB", (4, 1)).save(root / "images/validation/ADE_val_00000001.jpg")
    path = root / "annotations/validation/ADE_val_00000001.png"
    Image.fromarray(np.array([[0, 2, 149, 1]], np.uint8)).save(path)
    found = built(
        ade20k.plan_objects(root, "default", None), tmp_path / "o", "val", "ADE_val_00000001"
    )
    assert found.tolist() == [[0, 1, 59, 0]]  # building, clock; a wall is none of them
    found = built(
        ade20k.plan_scenes(root, "default", None), tmp_path / "s", "val", "ADE_val_00000001"
    )
    assert found.tolist() == [[0, 2, 149, 1]]
    Image.fromarray(np.array([[0, 2, 151, 1]], np.uint8)).save(path)
    (report,) = build(ade20k.plan_scenes(root, "default", None), tmp_path / "t")
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
    train, _ = build(ade20k.plan_parts(ade, "default", None), tmp_path / "out")
    faults = dict(train.faults)
    assert train.n_images == 1
    assert "ADE_train_00000001_seg.png is not beside it" in faults["ADE_train_00000001"]
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


def test_a_release_with_other_numbers_is_refused(ade: Path, tmp_path: Path) -> None:
    path = ade / "images/training/s/street/ADE_train_00000002.json"
    path.write_text(json_of((0, "sky", SKY), (1, "no class of ours", 4000)))
    build(ade20k.plan_parts(ade, "default", None), tmp_path / "good")
    for name, number, listed in (
        ("person", SKY, "2420 is 'sky'"),
        ("sky", 17, "'sky' has another"),
    ):
        path.write_text(json_of((0, name, number)))
        with pytest.raises(MismatchError, match=f"'{name}' has the number {number}.*{listed}"):
            build(ade20k.plan_parts(ade, "default", None), tmp_path / f"bad-{number}")


def test_masks_that_show_what_the_text_does_not_name(ade: Path, tmp_path: Path) -> None:
    path = ade / "images/training/s/street/ADE_train_00000001_atr.txt"
    path.write_text(ATR.replace("002 # 2 # 0 # rim # rim", "002 # 1 # 0 # rim # rim"))
    train, _ = build(ade20k.plan_parts(ade, "default", None), tmp_path / "out")
    assert train.notes[0][0] == "ADE_train_00000001"
    assert (
        "level 2 of the masks shows rim; ADE_train_00000001_atr.txt does not" in train.notes[0][1]
    )


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
    with pytest.raises(AnnotationError, match=r"x.json: not JSON"):
        parse_json("{", Path("x.json"))


def test_atr_lines() -> None:
    entries = parse_atr(ATR, Path("x_atr.txt"))
    assert len(entries) == 8
    assert (entries[1].level, entries[1].name, entries[1].number) == (0, "road, route", None)
    assert (entries[4].level, entries[4].name) == (2, "window")


def test_other_trees_are_no_release(tmp_path: Path) -> None:
    index_tree(tmp_path, "train", {"ADE_train_00000001": [[1]]})
    for plan in (ade20k.plan_parts, ade20k.plan_objects):
        with pytest.raises(MissingError, match=r"Expected there:\n  <root>/"):
            plan(tmp_path / "img", "default", None)


# -- Pascal -----------------------------------------------------------------------------------


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


def test_parts_are_painted_in_file_order(voc: Path, tmp_path: Path) -> None:
    parts = labels.load("pascal-part")
    side, wheel, plate, head, hair = (
        value(parts, n)
        for n in ("bus leftside", "bus wheel", "bus bliplate", "person head", "person hair")
    )
    later = [
        ((0, 6, 2, 8), wheel),
        ((4, 6, 6, 8), wheel),
        ((6, 2, 9, 5), head),
        ((6, 2, 9, 3), hair),
    ]
    found = built(
        pascal.plan("pascal-part", voc, None, None), tmp_path / "f", "train", "2008_000001"
    )
    assert np.array_equal(found, canvas(((0, 0, 8, 4), side), *later))  # the side hides the plate
    plan = pascal.plan("pascal-part", voc, None, "area")
    found = built(plan, tmp_path / "a", "train", "2008_000001")
    assert np.array_equal(found, canvas(((0, 0, 8, 4), side), ((1, 1, 3, 2), plate), *later))


def test_objects_are_silhouettes_and_a_removed_class_erases(voc: Path, tmp_path: Path) -> None:
    objects = labels.load("pascal-object")
    bus, person = value(objects, "bus"), value(objects, "person")
    plan = pascal.plan("pascal-object", voc, None, None)
    found = built(plan, tmp_path / "o", "train", "2008_000001")
    expected = canvas(((0, 0, 8, 8), bus), ((6, 2, 12, 8), person), ((0, 6, 4, 8), 0))
    assert np.array_equal(found, expected)


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
    assert list(pascal.plan("pascal-part", voc, tmp_path, None).splits) == [
        "all"
    ]  # no lists beside


def test_a_part_that_is_not_listed(tmp_path: Path) -> None:
    pascal_mat(tmp_path, "2008_000001", (9, "chair", WHOLE, [("leg_1", WHOLE)]))
    (report,) = build(pascal.plan("pascal-part", tmp_path, None, None), tmp_path / "out")
    assert (
        "chair (class 9) has the part 'leg_1', which the list of 193 parts does not have"
        in report.faults[0][1]
    )


def test_files_that_are_not_pascal_part(tmp_path: Path) -> None:
    from scipy.io import savemat

    path = tmp_path / "x.mat"
    path.write_text("hello, this is no MATLAB file at all, whatever its name may say")
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
    train, val = build(lip.plan(root), tmp_path / "out")
    assert (train.n_images, train.present, val.n_images, val.all_zero) == (1, 2, 1, ["300_3"])
    found = masks.read_index(tmp_path / "out" / "ann" / "train" / "100_1.png")
    assert np.array_equal(found, values)
    # The official tree is read as it lies, too.
    official = datasets.load("lip", "lip", root, "val")
    assert official.table.select("width", "height").rows() == [SIZE]
    assert official.table["mask"][0].endswith("val_segmentations/300_3.png")


def test_lip_values_above_19(tmp_path: Path) -> None:
    lip_image(tmp_path, "val", "1_1", canvas(((0, 0, 2, 2), 20)))
    (report,) = build(lip.plan(tmp_path), tmp_path / "out")
    assert "unknown class ids 20: the label set has 19 classes" in report.faults[0][1]
    with pytest.raises(MissingError, match=r"no LIP in .*TrainVal_images"):
        lip.plan(tmp_path / "TrainVal_images")


# -- the tree ---------------------------------------------------------------------------------


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*.png"))
    }


def test_building_again_paints_only_what_is_missing(ade: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = ade20k.plan_parts(ade, "default", None)
    first = build(plan, out)
    before = files(out)
    (out / "ann/train/ADE_train_00000001.png").unlink()
    (out / "ann/val/ADE_val_00000001.png").write_bytes(b"torn")
    again = build(plan, out)
    assert [report.painted for report in first] == [2, 1]
    assert [report.painted for report in again] == [1, 1]
    assert {name: data for name, (_, data) in files(out).items()} == {
        name: data for name, (_, data) in before.items()
    }
    kept = "ann/train/ADE_train_00000002.png"
    assert files(out)[kept] == before[kept]

    def counts(reports: list[SplitReport]) -> list[list[int]]:
        return [report.pixels.tolist() for report in reports]

    assert counts(first) == counts(again)
    assert not list(out.rglob("*.partial"))


def test_one_tree_one_recipe(ade: Path, tmp_path: Path) -> None:
    build(ade20k.plan_parts(ade, "default", None), tmp_path / "out")
    with pytest.raises(FingerprintError, match=r"was built differently .*list default → level1"):
        build(ade20k.plan_parts(ade, "level1", None), tmp_path / "out")


def test_images_are_linked_or_copied(ade: Path, tmp_path: Path) -> None:
    plan = ade20k.plan_parts(ade, "default", None)
    build(plan, tmp_path / "links")
    build(plan, tmp_path / "copies", copy=True)
    image = "img/train/ADE_train_00000001.jpg"
    assert (tmp_path / "links" / image).is_symlink()
    assert not (tmp_path / "copies" / image).is_symlink()
    assert (tmp_path / "links" / image).read_bytes() == (tmp_path / "copies" / image).read_bytes()


def test_a_built_tree_is_a_dataset(ade: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(ade20k.plan_parts(ade, "level1", None), out)
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
    assert tree.label_set("ade20k-part", out).list_name == "level1"
    with pytest.raises(UsageError, match="was built for ade20k-part, not for pascal-part"):
        datasets.load("mine", "pascal-part", out, "train")
    (out / "ann/train/ADE_train_00000002.png").unlink()
    with pytest.raises(
        MissingError, match=r"1 of 2 images have no mask: ann/train/ADE_train_00000002.png"
    ):
        datasets.load("mine", "ade20k-part", out, "train")
    fields = json.loads((out / "build.json").read_text())
    (out / "build.json").write_text(json.dumps({**fields, "labels_sha256": "0"}))
    with pytest.raises(FingerprintError, match="another version of the list level1"):
        tree.label_set("ade20k-part", out)
    (out / "build.json").write_text("[]")
    with pytest.raises(AnnotationError, match=r"build.json: not a build report"):
        tree.label_set("ade20k-part", out)


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
def test_the_real_ade20k(shared_dir: Path, tmp_path: Path) -> None:
    """Pixel counts by the arithmetic of the levels, stated with the label lists."""
    root = shared_dir / "data" / "ADE20K_2021_17_01"
    paths = ade20k.find_release(root)["train"]
    owners = ade20k.read_owners(paths[0])
    values = ade20k.paint_parts(owners, ade20k.read_levels(paths[0], owners.shape), "default")
    parts = labels.load("ade20k-part")
    counts = masks.count(values, 209)
    assert counts[value(parts, "door") - 1] == 3625 - 947 - 104 - 36
    assert counts[value(parts, "wheel") - 1] == 2292 - 964
    assert counts[value(parts, "window") - 1] == 5105 + 947
    assert (
        ade20k._cross_check(paths[0], owners, list(ade20k.read_levels(paths[0], owners.shape)))
        == ()
    )


@pytest.mark.shared
def test_the_real_pascal_part(shared_dir: Path) -> None:
    mats = pascal.find_mats(shared_dir / "data" / "pascal_part")
    assert len(mats) == 22
    things = {name: pascal.read_mat(path) for name, path in mats.items()}
    assert sum(map(len, things.values())) == 62
    assert sum(len(t.parts) for ts in things.values() for t in ts) == 517
    assert len({t.voc_class for ts in things.values() for t in ts}) == 14
    for name in ("2010_000145", "2010_001199"):  # a boat; chairs and a table
        assert not pascal.paint_parts(things[name], mats[name]).any()
    plate = value(labels.load("pascal-part"), "car bliplate")
    bus = things["2008_000939"]
    assert not (pascal.paint_parts(bus, mats["2008_000939"]) == plate).any()
    assert (pascal.paint_parts(bus, mats["2008_000939"], "area") == plate).any()
