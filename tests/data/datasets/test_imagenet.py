"""ImageNet: class names, and the authors' subset of the validation images."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import polars as pl
import pytest

from pa.data import datasets
from pa.data.datasets import imagenet
from pa.errors import MissingError, UnknownNameError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number in (1, 24999, 25000, 25793, 25794, 39553, 41979, 44160, 50000):
        (folder / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(b"x")
    (folder / "other.JPEG").write_bytes(b"x")
    return tmp_path


def test_val_25003_contains_authors_images(root: Path) -> None:
    images = datasets.load("imagenet", "imagenet", root, "val-25003")
    numbers = [int(path[-13:-5]) for path in images.table["path"]]
    assert numbers == [1, 24999, 25793, 39553, 41979, 44160]
    assert images.table["image"].to_list() == list(range(6))


def test_val_25003_has_25003_images() -> None:
    paths = [f"val/n/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50001)]
    table = pl.DataFrame({"path": [*paths, "val/n/other.JPEG"]})
    assert len(table.filter(imagenet.IN_SUBSET)) == 25_003


def test_val_25003_is_read_only_on_request(root: Path) -> None:
    assert datasets.load("imagenet", "imagenet", root).split == "val"
    with pytest.raises(UnknownNameError, match=r"'val-2500'. Did you mean val-25003 or val\?"):
        datasets.load("imagenet", "imagenet", root, "val-2500")


def test_class_names_are_those_of_timm() -> None:
    names = imagenet.class_names()
    assert len(names) == 1000
    assert (names["n01440764"], names["n15075141"]) == ("tench", "toilet tissue")
    assert list(names) == sorted(names)


def test_class_names_need_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for spec in (None, ModuleSpec("timm", None, origin=str(tmp_path / "__init__.py"))):
        imagenet.synset_names.cache_clear()
        monkeypatch.setattr(imagenet, "find_spec", lambda name, spec=spec: spec)
        assert imagenet.class_names() == {}
        assert imagenet.readable_label("n01440764") == "n01440764"
    imagenet.synset_names.cache_clear()


def test_folders_without_class_are_noted(root: Path) -> None:
    (root / "val" / "cats").mkdir()
    (root / "val" / "cats" / "1.JPEG").write_bytes(b"x")
    table = datasets.load("imagenet", "imagenet", root).table
    assert imagenet.remarks(table) == [
        "1 of the 1000 classes of ImageNet-1k: n01440764 tench … n01440764 tench",
        "1 folders are none of them, such as cats",
    ]


def test_labels_are_shown_by_name() -> None:
    assert imagenet.readable_label("n01440764") == "tench"
    assert imagenet.readable_label("n00004475") == "organism"  # of ImageNet-22k
    assert imagenet.readable_label("n99999999") == "n99999999"
    assert imagenet.readable_label("left wing") == "left wing"


def test_root_one_level_off_is_recognised(tmp_path: Path) -> None:
    for name in ("imagenet/val/n01440764/a.JPEG", "photos/2024/spring/b.jpg", "docs/a/b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    right = tmp_path / "imagenet"
    assert datasets.load("imagenet", "imagenet", right).split == "val"
    for wrong in (tmp_path, right / "val"):
        with pytest.raises(MissingError) as refused:
            datasets.load("imagenet", "imagenet", wrong, "val")
        assert f"--root {right}" in str(refused.value)
        assert imagenet.LAYOUT in str(refused.value)
    with pytest.raises(MissingError) as refused:
        datasets.load("imagenet", "imagenet", tmp_path / "docs")
    assert "--root" not in str(refused.value)
