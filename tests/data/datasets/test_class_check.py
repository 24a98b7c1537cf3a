"""The class counts of a dataset's own files, beside the expected ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pa.data import datasets
from pa.data.datasets.segmentation import ade20k_index, class_check, labels
from pa.data.datasets.segmentation.ade20k_index import Count
from pa.errors import AnnotationError, UnknownNameError
from pa.progress import Silent
from tests.support.segmentation_trees import (
    CAR,
    CROSSWALK,
    DOOR,
    ROAD,
    SIZE,
    WHEEL,
    ade_image,
    canvas,
    index_tree,
    pascal_mat,
    rgb_of,
)

ATR = """001 # 0 # 0 # car, auto, automobile, machine, motorcar # car # ""
001 # 1 # 0 # door # door # ""
002 # 1 # 0 # crosswalk # zebra crossing # ""
001 # 2 # 0 # wheel # wheel # ""
"""


def found(check: class_check.ClassCheck) -> dict[str, int]:
    return {count.what: count.found for count in check.counts}


def test_a_count_agrees_with_a_number_or_a_range() -> None:
    assert Count("x", 209, "209").agrees
    assert not Count("x", 208, "209").agrees
    assert [Count("x", n, "201..217").agrees for n in (200, 201, 217, 218)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_tree_is_read_whole(tmp_path: Path) -> None:
    index_tree(tmp_path, "train", {"a": [[1, 2, 0]], "b": [[0, 0, 0]], "c": [[20, 1, 1]]})
    index_tree(tmp_path, "val", {"a": [[2, 3, 0]], "d": [[1, 1]]}, {"d": (1, 2)})
    splits = [datasets.load("lip", "lip", tmp_path, split) for split in ("train", "val")]
    check = class_check.check_tree(labels.load("lip"), splits, Silent())
    assert found(check) == {
        "classes with a pixel in train": 2,
        "classes with a pixel in val": 2,
        "classes with a pixel in both splits": 1,
    }
    assert check.all_zero == ["ann/train/b.png"]
    assert len(check.faults) == 2
    assert "unknown class ids 20" in check.faults[0]
    assert "the mask is 2x1, its image 1x2" in check.faults[1]
    assert len(check.missing) == 16
    assert not check.counts[0].agrees
    assert check.to_json()["counts"][0]["agrees"] is False


def test_ade20k_is_counted_by_every_reading(tmp_path: Path) -> None:
    seg = canvas(((0, 0, 8, 8), CAR), ((8, 0, 12, 8), ROAD))
    doors = canvas(((0, 0, 2, 2), DOOR), ((4, 0, 6, 2), DOOR), ((8, 0, 12, 4), CROSSWALK))
    train = ade_image(tmp_path, "ADE_train_00000001", seg, doors, canvas(((0, 0, 1, 1), WHEEL)))
    instances = canvas(((0, 0, 2, 2), 1), ((4, 0, 6, 2), 2), ((8, 0, 12, 4), 3))
    rgb_of(doors, instances).save(train.with_name(f"{train.stem}_parts_1.png"))
    ade_image(tmp_path, "ADE_val_00000001", seg, doors)
    seen = class_check.see_parts(train)
    assert isinstance(seen, class_check.Seen)
    objects = {c.name: c.value for c in labels.load("ade20k-object").classes}
    assert dict(seen.parts) == {
        (objects["car"], 1, DOOR): 2,
        (0, 1, CROSSWALK): 1,
        (objects["car"], 2, WHEEL): 1,
    }
    check = class_check.check_ade20k(tmp_path, "ade20k-part", Silent())
    assert found(check) == {
        "of the 59 objects, in train": 1,
        "of the 59 objects, in val": 1,
        "part names in train, any object and level": 3,
        "part names in val, any object and level": 2,
        "part names in both splits, any object and level": 2,
        "… of one of the 59 objects": 1,
        "… at level 1 of any object": 2,
        "pairs at level 1 with 50 instances or more": 0,
    }
    assert len(check.missing) == 208
    assert (check.images, check.of_images, check.is_part) == (2, 22_210, True)
    of_objects = class_check.check_ade20k(tmp_path, "ade20k-object", Silent())
    assert found(of_objects) == {
        "of the 59 objects, in train": 1,
        "of the 59 objects, in val": 1,
        "… that have a part": 1,
    }
    assert len(of_objects.missing) == 58
    val = class_check.check_ade20k(tmp_path, "ade20k-object", Silent(), "val")
    assert found(val) == {"of the 59 objects, in val": 1, "… that have a part": 1}
    assert "val: 1 images; for 0 the .json or _atr.txt was compared" in check.notes
    assert not check.differences
    train.with_name(f"{train.stem}_atr.txt").write_text(ATR)
    told = f"{train.stem}: level 1, instances in the mask against {train.stem}_atr.txt: door"
    differing = class_check.check_ade20k(tmp_path, "ade20k-part", Silent())
    assert differing.differences == [f"{told} 2 against 1"]
    train.with_name(f"{train.stem}_parts_2.png").unlink()
    deeper = class_check.check_ade20k(tmp_path, "ade20k-part", Silent())
    assert [line.partition(": ")[2] for line in deeper.differences] == [
        f"level 1, instances in the mask against {train.stem}_atr.txt: door 2 against 1",
        f"level 2, instances in the mask against {train.stem}_atr.txt: wheel 0 against 1",
    ]
    with pytest.raises(UnknownNameError, match="Known: train, val"):
        class_check.check_ade20k(tmp_path, "ade20k-part", Silent(), "test")
    train.with_name(f"{train.stem}_seg.png").unlink()
    assert (
        "is not beside it" in class_check.check_ade20k(tmp_path, "ade20k-part", Silent()).faults[0]
    )


def test_pascal_parts_are_counted_merged(tmp_path: Path) -> None:
    whole = (0, 0, *SIZE)
    parts = [("wheel_1", whole), ("wheel_2", whole), ("hood", whole)]
    pascal_mat(tmp_path, "2008_000001", (7, "car", whole, parts), (9, "chair", whole, []))
    (tmp_path / "Annotations_Part" / "2008_000002.mat").write_text("torn")
    check = class_check.check_pascal(tmp_path, Silent())
    assert found(check) == {
        "annotated images": 2,
        "classes with parts": 1,
        "(class, part) pairs, numbered parts merged": 2,
        "… of these in the list": 1,
    }
    assert check.notes == ["not in the list: class 7, part hood"]
    assert "not a MATLAB file" in check.faults[0]
    assert len(check.missing) == 192
    objects = class_check.check_pascal(tmp_path, Silent(), "pascal-object")
    assert found(objects) == {"annotated images": 2, "classes with parts": 1}
    assert (objects.n_classes, len(objects.missing)) == (16, 15)
    assert "car" not in objects.missing


def write_index(path: Path, names: list[str], parts: object, instances: object) -> None:
    files = ["ADE_train_00000001.jpg", "ADE_train_00000002.jpg", "ADE_val_00000001.jpg"]
    savemat(
        path,
        {
            "index": {
                "objectnames": np.array(names, object),
                "filename": np.array(files, object),
                "objectIsPart": np.asarray(parts, np.float32),
                "objectPresence": np.asarray(instances, np.float32),
            }
        },
    )


def test_an_index_by_hand(tmp_path: Path) -> None:
    path = tmp_path / ade20k_index.INDEX_NAME
    # door: in both splits, two train images; wheel: train only; car: never a part.
    write_index(
        path,
        ["door", "wheel", "car"],
        [[1, 3, 2], [1, 0, 0], [0, 0, 0]],
        [[2, 6, 4], [1, 0, 0], [5, 5, 5]],
    )
    counts = {c.what: c.found for c in ade20k_index.count_index(ade20k_index.read_index(path))}
    assert counts["names that are a part anywhere"] == 2
    assert counts["names that are a part in a training image"] == 2
    assert counts["names that are a part in a validation image"] == 1
    assert counts["names that are a part in both splits"] == 1
    assert counts["… in at least 2 images of each"] == 0
    assert counts["… 2 instances in each"] == 1
    assert counts["… 3 instances in each"] == 0
    assert counts["… 2 training images and one validation image"] == 1
    assert counts["… a part in more than 45% of its occurrences"] == 1
    assert counts["… a part in more than 50% of its occurrences"] == 0  # 6 of 12
    assert (
        counts["classes of the list default whose number, name and image counts the index has"] == 0
    )
    assert ade20k_index.find_index(tmp_path) == path
    assert ade20k_index.find_index(tmp_path.parent / "nothing") is None


def test_files_that_are_no_index(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    savemat(path, {"scores": np.ones(3)})
    with pytest.raises(
        AnnotationError, match=r"x.mat: not the index of ADE20K: expected the variable `index`"
    ):
        ade20k_index.read_index(path)
    write_index(path, ["door"], [[1, 3, 2]], [[2, 6]])
    with pytest.raises(AnnotationError, match="counts of shape"):
        ade20k_index.read_index(path)


@pytest.mark.shared
def test_the_real_index(shared_dir: Path) -> None:
    """Every count of the real index is the expected one, 231 and 209 among them."""
    path = ade20k_index.find_index(shared_dir / "data" / "ADE20K_meta_unifiedparsing")
    assert path is not None
    counts = ade20k_index.count_index(ade20k_index.read_index(path))
    assert [count for count in counts if not count.agrees] == []
    by_name = {count.what: count.found for count in counts}
    assert by_name["names that are a part in both splits"] == 231
    assert by_name["names in both splits without those the list default drops"] == 209
    assert by_name["classes of the list default with a known owner among the 59"] == 201
