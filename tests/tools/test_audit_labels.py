"""`tools/audit_labels.py`: counts of miniature releases, and of the real index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.support.segmentation_trees import (
    CAR,
    CROSSWALK,
    DOOR,
    ROAD,
    SIZE,
    WHEEL,
    ade_image,
    canvas,
    pascal_mat,
    rgb_of,
)

SCRIPT = Path(__file__).parents[2] / "tools" / "audit_labels.py"


def audit(release: str, path: Path) -> tuple[int, dict[str, int], str]:
    """Run the script; return its exit code, its counts by title, and its output."""
    done = subprocess.run(
        [sys.executable, SCRIPT, release, path], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    rows = [line.rpartition("  expected ") for line in done.stdout.splitlines()]
    titles = [row[0].strip().rpartition(" ") for row in rows if row[1]]
    counts = {title.strip(): int(actual.replace(",", "")) for title, _, actual in titles}
    return done.returncode, counts, done.stdout


def test_ade20k_counts_objects_and_parts(tmp_path: Path) -> None:
    seg = canvas(((0, 0, 8, 8), CAR), ((8, 0, 12, 8), ROAD))
    doors = canvas(((0, 0, 2, 2), DOOR), ((4, 0, 6, 2), DOOR), ((8, 0, 12, 4), CROSSWALK))
    train = ade_image(tmp_path, "ADE_train_00000001", seg, doors, canvas(((0, 0, 1, 1), WHEEL)))
    instances = canvas(((0, 0, 2, 2), 1), ((4, 0, 6, 2), 2), ((8, 0, 12, 4), 3))
    rgb_of(doors, instances).save(train.with_name(f"{train.stem}_parts_1.png"))
    ade_image(tmp_path, "ADE_val_00000001", seg, doors)
    code, counts, _ = audit("ade20k", tmp_path)
    assert code == 0
    assert counts == {
        "of the 59 objects, in train": 1,
        "of the 59 objects, in val": 1,
        "part names in train, any object and level": 3,
        "part names in val, any object and level": 2,
        "part names in both splits, any object and level": 2,
        "… of one of the 59 objects": 1,
        "… at level 1 of any object": 2,
        "pairs at level 1 with 50 instances or more": 0,
    }
    train.with_name(f"{train.stem}_seg.png").unlink()
    code, _, text = audit("ade20k", tmp_path)
    assert code == 1
    assert "is not next to it" in text


def test_pascal_merges_numbered_parts(tmp_path: Path) -> None:
    whole = (0, 0, *SIZE)
    parts = [("wheel_1", whole), ("wheel_2", whole), ("hood", whole)]
    pascal_mat(tmp_path, "2008_000001", (7, "car", whole, parts), (9, "chair", whole, []))
    (tmp_path / "Annotations_Part" / "2008_000002.mat").write_text("torn")
    code, counts, text = audit("pascal", tmp_path)
    assert code == 1
    assert counts == {
        "annotated images": 2,
        "classes with parts": 1,
        "(class, part) pairs, numbered parts merged": 2,
        "… of these in the list": 1,
    }
    assert "not in the list: class 7, part hood" in text
    assert "not a MATLAB file" in text


def test_scenes_counts_the_59_objects(tmp_path: Path) -> None:
    for kind in ("images", "annotations"):
        (tmp_path / kind / "validation").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "validation" / "a.jpg")
    mask = np.full((4, 4), 4, np.uint8)  # floor: not among the 59
    mask[0] = 8  # bed
    path = tmp_path / "annotations" / "validation" / "a.png"
    Image.fromarray(mask).save(path)
    assert audit("scenes", tmp_path)[:2] == (0, {"of the 59 objects, in val": 1})
    mask[1] = 151
    Image.fromarray(mask).save(path)
    code, _, text = audit("scenes", tmp_path)
    assert code == 1
    assert "unknown class ids 151" in text


def test_index_counts_part_names(tmp_path: Path) -> None:
    path = tmp_path / "index_ade20k.mat"
    files = ["ADE_train_00000001.jpg", "ADE_train_00000002.jpg", "ADE_val_00000001.jpg"]
    # door: in both splits, two training images; wheel: train only; car: never a part.
    index = {
        "objectnames": np.array(["door", "wheel", "car"], object),
        "filename": np.array(files, object),
        "objectIsPart": np.array([[1, 3, 2], [1, 0, 0], [0, 0, 0]], np.float32),
        "objectPresence": np.array([[2, 6, 4], [1, 0, 0], [5, 5, 5]], np.float32),
    }
    savemat(path, {"index": index})
    code, counts, _ = audit("index", path)
    assert code == 1
    assert counts["names that are a part anywhere"] == 2
    assert counts["names that are a part in a validation image"] == 1
    assert counts["names that are a part in both splits"] == 1
    assert counts["… in at least 2 images of each"] == 0
    assert counts["… 2 instances in each"] == 1
    assert counts["… 2 training images and one validation image"] == 1
    assert counts["… a part in more than 45% of its occurrences"] == 1
    assert counts["… a part in more than 50% of its occurrences"] == 0  # 6 of 12


@pytest.mark.shared
def test_real_index_gives_every_expected_count(shared_dir: Path) -> None:
    (path,) = (shared_dir / "data" / "ADE20K_meta_unifiedparsing").rglob("index_ade20k.mat")
    code, counts, text = audit("index", path)
    assert code == 0, text
    assert counts["names that are a part in both splits"] == 231
    assert counts["names in both splits without those that the list drops"] == 209
