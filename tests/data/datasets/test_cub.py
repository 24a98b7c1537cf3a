"""CUB-200-2011 in its official layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from pa.data import datasets
from pa.data.schema import Images
from pa.data.views.parts import PROTOCOLS
from pa.errors import AmbiguousError, AnnotationError, MissingError
from tests.support.trees import write_cub

BIRDS = [
    {"right eye": (20.0, 10.0), "tail": (50.0, 50.0), "beak": (22.0, 11.0)},
    {"right leg": (30.5, 40.25), "left wing": (30.5, 20.25), "tail": (60.5, 20.25)},
    {"tail": (40.0, 30.0)},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cub(tmp_path / "cub", BIRDS, train=(1, 3))


def load(root: Path, split: str = "all") -> Images:
    return datasets.load("cub", "cub", root, split)


def test_splits_and_labels(root: Path) -> None:
    table = load(root).table
    assert table.select("image", "path", "label", "label_id").rows() == [
        (0, "images/001.Auk/Auk_0001.jpg", "001.Auk", 0),
        (1, "images/001.Auk/Auk_0003.jpg", "001.Auk", 0),
        (2, "images/002.Wren/Wren_0002.jpg", "002.Wren", 1),
    ]
    assert table["file_bytes"].min() > 0
    assert [p[-8:-4] for p in load(root, "train").table["path"]] == ["0001", "0003"]
    assert [p[-8:-4] for p in load(root, "test").table["path"]] == ["0002"]
    with pytest.raises(AmbiguousError, match="has the splits train, test, all"):
        datasets.load("cub", "cub", root)


def test_keypoints_are_those_of_the_split(root: Path) -> None:
    actual = load(root, "test").annotations()
    seen = actual.table.filter(visible=2).select("object", "part", "x", "y")
    assert seen.rows() == [
        (2, "left wing", 30.5, 20.25),
        (2, "right leg", 30.5, 40.25),
        (2, "tail", 60.5, 20.25),
    ]
    assert len(actual.table) == 15
    assert actual.considered == ("right eye", "right leg", "left wing", "tail")


def test_rows_say_part_and_species(root: Path) -> None:
    rows = PROTOCOLS["paper"].rows(load(root))
    # The only part of image 3 is not a row; d is to the nearest of the four parts, not to the beak.
    assert rows.select("image", "label", "label_id", "part", "object", "class").rows() == [
        (0, "right eye", 0, "right eye", "1", "001.Auk"),
        (0, "tail", 3, "tail", "1", "001.Auk"),
        (2, "right leg", 1, "right leg", "2", "002.Wren"),
        (2, "left wing", 2, "left wing", "2", "002.Wren"),
        (2, "tail", 3, "tail", "2", "002.Wren"),
    ]
    assert rows["d"].to_list() == [50.0, 50.0, 20.0, 20.0, 30.0]


def test_missing_files_stay_in_the_table(root: Path) -> None:
    (root / "images/001.Auk/Auk_0003.jpg").unlink()
    assert load(root).table["file_bytes"][1] == -1


@pytest.mark.parametrize("gone", ["files", "folder"])
def test_missing_images_show_layout(root: Path, gone: str) -> None:
    for file in (root / "images").rglob("*.jpg"):
        file.unlink()
    if gone == "folder":
        (root / "images").rename(root / "pictures")
    with pytest.raises(MissingError, match=r"none of the 3 images of images.txt exists") as caught:
        load(root)
    assert "<root>/images/<class>/*.jpg" in str(caught.value)


@pytest.mark.parametrize("file", ["classes.txt", "image_class_labels.txt", "parts/part_locs.txt"])
def test_missing_lists_show_the_layout(root: Path, file: str) -> None:
    (root / file).unlink()
    with pytest.raises(MissingError, match=rf"{file} does not exist. Expected:"):
        load(root).annotations()


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("images.txt", "1 002.Wren/other.jpg", r"images.txt: id 1 occurs more than once \(1 such"),
        ("images.txt", "9 001.Auk/Auk_0001.jpg", "image file 001.Auk/Auk_0001.jpg occurs more than"),
        ("images.txt", "nine x.jpg", r"images.txt, line 4: 'nine x.jpg'. Expected: an id and a name"),
        ("train_test_split.txt", "4", r"train_test_split.txt, line 4: '4'. Expected: an id and 0 \(test\) or 1"),
        ("train_test_split.txt", "4 2", r"line 4: '4 2'. Expected: an id and 0 \(test\) or 1 \(train\)"),
        ("image_class_labels.txt", "4 Auk", r"line 4: '4 Auk'. Expected: an id and a number"),
        ("parts/parts.txt", "16 tail", "parts.txt: part tail occurs more than once"),
        ("parts/part_locs.txt", "4 1 9 9 1", r"part_locs.txt, line 46: image 4 is not in images.txt \(1 such"),
        ("classes.txt", "2 003.Owl", "classes.txt: id 2 occurs more than once"),
        ("parts/part_locs.txt", "1 4 9 9 1", r"part_locs.txt: image and part \(1, 4\) occurs more"),
        ("parts/part_locs.txt", "1 16 9 9 1", "part_locs.txt, line 46: part 16 is not in parts.txt"),
        ("parts/part_locs.txt", "1 4 9 nan 1", "line 46: '1 4 9 nan 1'. Expected: image id, part id"),
        ("parts/part_locs.txt", "1 4 9 9 2", "line 46: '1 4 9 9 2'. Expected: image id, part id"),
        ("parts/part_locs.txt", "1 4 9 9", "line 46: '1 4 9 9'. Expected: image id, part id"),
    ],
)  # fmt: skip
def test_faulty_lists_are_refused(root: Path, file: str, line: str, message: str) -> None:
    with (root / file).open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(AnnotationError, match=message):
        load(root, "train").annotations()


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_without_split_is_refused(root: Path, split: str) -> None:
    (root / "train_test_split.txt").write_text("1 1\n3 1\n")
    with pytest.raises(
        AnnotationError,
        match=r"split.txt: 0 lines of image 2 \(images/002.Wren/Wren_0002.jpg\). Expected: 1 for",
    ):
        load(root, split)
    assert len(load(root).table) == 3  # the split `all` does not ask


@pytest.mark.parametrize(
    ("kept", "actual"), [(15, "0 lines of image 2"), (29, "14 lines of image 2")]
)
def test_image_without_part_locations_is_refused(root: Path, kept: int, actual: str) -> None:
    file = root / "parts/part_locs.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:kept] + lines[30:]))
    with pytest.raises(
        AnnotationError, match=rf"part_locs.txt: {actual} .* Expected: 15 for every image"
    ):
        load(root, "train").annotations()


def test_parts_of_another_release_are_refused(root: Path) -> None:
    file = root / "parts/parts.txt"
    file.write_text(file.read_text().replace("right eye", "eye right").replace("tail", "Tail"))
    with pytest.raises(
        AnnotationError,
        match=r"parts.txt does not name right eye, tail. Expected among its parts: right eye, right "
        r"leg, left wing, tail; found: back, .*eye right",
    ):
        load(root).annotations()


def test_image_without_class_is_refused(root: Path) -> None:
    (root / "image_class_labels.txt").write_text("1 1\n2 7\n3 1\n")
    with pytest.raises(
        AnnotationError, match=r"1 images have no class of classes.txt; the first is"
    ):
        load(root)


def test_undecodable_lists_are_refused(root: Path) -> None:
    (root / "classes.txt").write_bytes(b"1 \xff\xfe\n")
    with pytest.raises(AnnotationError, match=r"classes.txt is not a text file"):
        load(root)


# Frozen counts: right eye, right leg, left wing, tail; images with a patch; images.
SAMPLE = {
    ("paper", "train"): ([144, 131, 182, 227], 251, 300),
    ("paper", "test"): ([119, 120, 160, 197], 219, 243),
    ("paper", "all"): ([263, 251, 342, 424], 470, 543),
    ("released", "train"): ([136, 104, 147, 198], 239, 300),
    ("released", "test"): ([109, 96, 133, 169], 205, 243),
    ("released", "all"): ([245, 200, 280, 367], 444, 543),
}


@pytest.mark.shared
@pytest.mark.parametrize(("protocol", "split"), SAMPLE)
def test_counts_of_the_real_sample(shared_dir: Path, protocol: str, split: str) -> None:
    images = load(shared_dir / "data" / "CUB_200_2011_320px", split)
    counts = PROTOCOLS[protocol].select(images).counts
    assert (list(counts.kept.values()), counts.images_kept, counts.images) == SAMPLE[
        protocol, split
    ]
    assert counts.annotated == 4 * counts.images
