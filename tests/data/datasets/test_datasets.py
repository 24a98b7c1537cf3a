"""Datasets in their official layouts, in miniature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pa.data import datasets
from pa.data.datasets.listing import read_ids
from pa.errors import AmbiguousError, AnnotationError, MissingError, UnknownNameError, UsageError
from tests.support.images import noise_image

Tree = Callable[..., Path]


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    root = tmp_path / "imagenet"
    for split in ("train", "val"):
        for wnid in ("n02", "n01", "n10"):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for number in (2, 1):
                (folder / f"{wnid}_{number}.JPEG").write_bytes(b"x" * number)
            (folder / "notes.txt").write_text("no image")
            (folder / ".hidden.JPEG").write_text("hidden")
    (root / "devkit").mkdir()
    return root


def test_imagenet_classes_are_the_sorted_wnids(imagenet: Path) -> None:
    images = datasets.load("imagenet", "imagenet", imagenet, "val")
    assert images.table.select("image", "path", "label", "label_id", "file_bytes").rows() == [
        (0, "val/n01/n01_1.JPEG", "n01", 0, 1),
        (1, "val/n01/n01_2.JPEG", "n01", 0, 2),
        (2, "val/n02/n02_1.JPEG", "n02", 1, 1),
        (3, "val/n02/n02_2.JPEG", "n02", 1, 2),
        (4, "val/n10/n10_1.JPEG", "n10", 2, 1),
        (5, "val/n10/n10_2.JPEG", "n10", 2, 2),
    ]


def test_imagenet_splits(imagenet: Path) -> None:
    with pytest.raises(AmbiguousError, match="has the splits train, val: choose one with --split"):
        datasets.load("imagenet", "imagenet", imagenet)
    with pytest.raises(UnknownNameError, match=r"'vla'. Did you mean val"):
        datasets.load("imagenet", "imagenet", imagenet, "vla")


def test_folder_labels_are_the_first_sub_folders(tmp_path: Path) -> None:
    for path in ("b/deep/1.jpg", "a/1.PNG", "lone.webp"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    images = datasets.load("mine", "folder", tmp_path)
    assert images.split == "all"
    assert images.table.select("path", "label", "label_id").rows() == [
        ("a/1.PNG", "a", 0),
        ("b/deep/1.jpg", "b", 1),
        ("lone.webp", None, None),
    ]


def test_missing_root_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        datasets.load("imagenet", "imagenet", tmp_path / "no")
    assert "is not a folder" in str(caught.value)
    assert "<root>/<split>/<wnid>/*.JPEG" in str(caught.value)


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no split found"):
        datasets.load("imagenet", "imagenet", tmp_path)
    with pytest.raises(MissingError, match="no image in split all"):
        datasets.load("photos", "folder", tmp_path)


def test_unknown_kind_says_how_to_name_ones_own(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'imagnet'. Did you mean imagenet"):
        datasets.load("x", "imagnet", tmp_path)


def test_file_names_that_tables_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "a\nb.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="holds control characters or is not UTF-8"):
        datasets.load("photos", "folder", tmp_path)


def test_dangling_link_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert datasets.load("photos", "folder", tmp_path).table["file_bytes"].to_list() == [-1]


def test_link_to_parent_folder_is_refused(tmp_path: Path) -> None:
    for name in ("photos/cats", "other"):
        (tmp_path / name).mkdir(parents=True)
    noise_image(1).save(tmp_path / "other" / "1.png")
    (tmp_path / "photos" / "cats" / "more").symlink_to(tmp_path / "other")
    images = datasets.load("photos", "folder", tmp_path / "photos")
    assert images.table["path"].to_list() == ["cats/more/1.png"]
    (tmp_path / "other" / "back").symlink_to(tmp_path / "photos")
    with pytest.raises(UsageError, match=r"cats/more/back is a link to a folder that contains it"):
        datasets.load("photos", "folder", tmp_path / "photos")


@pytest.mark.shared
def test_sample_is_read(shared_dir: Path) -> None:
    root = shared_dir / "data" / "imagenet_sample_1000"
    images = datasets.load("imagenet", "imagenet", root)
    assert images.split == "val"
    assert len(images.table) == 1000
    assert images.table["label"].n_unique() == 1000
    assert images.table["label_id"].to_list() == list(range(1000))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"b\na\nb\n", "names b twice"),
        (b"a\n../b\n", "'../b' is a path, not the id of an image"),
        (b"\xff\xfe", "is not a text file"),
    ],
)
def test_lists_of_ids(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "train.txt"
    file.write_bytes(b"\xef\xbb\xbfb  1\n\na -1\n")
    assert read_ids(file) == ["a", "b"]
    file.write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_ids(file)
