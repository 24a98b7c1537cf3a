"""Reading every mask of a tree."""

from __future__ import annotations

from pathlib import Path

from pa.data import datasets
from pa.data.datasets.check import check_masks
from pa.data.datasets.segmentation import labels
from pa.progress import Silent
from tests.support.segmentation_trees import index_tree


def test_check_masks_counts_classes_and_lists_faults(tmp_path: Path) -> None:
    index_tree(tmp_path, "train", {"a": [[1, 2, 0]], "b": [[0, 0, 0]], "c": [[20, 1, 1]]})
    index_tree(tmp_path, "val", {"a": [[2, 3, 0]], "d": [[1, 1]]}, {"d": (1, 2)})
    splits = [datasets.load("lip", "lip", tmp_path, split) for split in ("train", "val")]
    check = check_masks(labels.load("lip"), splits, Silent())
    assert {count.what: count.counted for count in check.counts} == {
        "classes with a pixel in train": 2,
        "classes with a pixel in val": 2,
        "classes with a pixel in both splits": 1,
    }
    assert check.all_zero == ["ann/train/b.png"]
    assert len(check.faults) == 2
    assert "unknown class ids 20" in check.faults[0]
    assert "the mask is 2x1, its image 1x2" in check.faults[1]
    assert len(check.missing) == 16
    assert check.is_subset
    assert check.to_json()["counts"][0]["agrees"] is False
