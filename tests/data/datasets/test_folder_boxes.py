"""A table of boxes makes any tree of images a dataset of parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pa.data import datasets
from pa.data.schema import ROW_SCHEMA, Images
from pa.data.views.parts import PAPER, PROTOCOLS
from pa.errors import AnnotationError, MissingError, UnknownNameError, UsageError
from tests.support.images import noise_image

BOXES = PROTOCOLS["boxes"]
HEAD = "path,x0,y0,x1,y1,label\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("cats/1.png", "cats/2.png", "dogs/1.png"):
        file = tmp_path / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        noise_image(len(path)).save(file)  # 80×60
    return tmp_path / "photos"


def load(root: Path, text: str) -> Images:
    table = root.parent / "boxes.csv"
    table.write_text(text)
    return datasets.load("pets", "folder", root, boxes=table)


def test_boxes_become_rows(root: Path) -> None:
    images = load(
        root,
        HEAD
        + "dogs/1.png,0,0,20,20,tail\ncats/1.png,10.5,11.5,30,30,nose\ncats/1.png,-5,0,9,9,ear\n",
    )
    rows = BOXES.rows(images)
    assert rows.columns == [*ROW_SCHEMA, "part", "object", "class", "x", "y", "d"]
    # Images in their order, boxes as listed; label ids by the sorted labels; halves to even.
    assert rows.select(
        "row", "path", "x0", "y0", "x1", "y1", "label", "label_id", "class"
    ).rows() == [
        (0, "cats/1.png", 10, 12, 30, 30, "nose", 1, "cats"),
        (1, "cats/1.png", -5, 0, 9, 9, "ear", 0, "cats"),
        (2, "dogs/1.png", 0, 0, 20, 20, "tail", 2, "dogs"),
    ]
    assert rows["part"].to_list() == ["nose", "ear", "tail"]
    assert rows.select(pl.col("object", "x", "y", "d").null_count()).row(0) == (3, 3, 3, 3)


def test_optional_columns(root: Path) -> None:
    images = load(
        root,
        "label,class,object,part,y1,x1,y0,x0,path\nfelis nose,felis,a7,nose,9,9,0,0,cats/2.png\n",
    )
    row = BOXES.rows(images).row(0, named=True)
    assert (row["label"], row["part"], row["object"], row["class"]) == (
        "felis nose",
        "nose",
        "a7",
        "felis",
    )


def test_parquet_says_the_same(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.parquet"
    pl.DataFrame(
        {"path": ["cats/1.png"], "x0": [1], "y0": [2], "x1": [30], "y1": [40], "label": ["ear"]}
    ).write_parquet(table)
    images = datasets.load("pets", "folder", root, boxes=table)
    assert BOXES.rows(images).select("x0", "y1", "label").row(0) == (1.0, 40.0, "ear")


def test_boxes_outside_image_are_counted(root: Path) -> None:
    images = load(root, HEAD + "cats/1.png,0,0,9,9,ear\ncats/1.png,80,0,99,9,ear\n")
    counts = BOXES.select(images).counts
    assert (counts.kept, counts.skipped) == ({"ear": 1}, {"outside the image": {"ear": 1}})
    assert (counts.images, counts.images_kept) == (3, 1)


def test_boxes_of_less_than_a_pixel_are_counted(root: Path) -> None:
    images = load(root, HEAD + "cats/1.png,0,0,9,9,ear\ncats/1.png,4.1,0,4.3,9,ear\n")
    assert BOXES.select(images).counts.skipped == {"box without pixels": {"ear": 1}}


def test_chosen_labels_only(root: Path) -> None:
    images = load(root, HEAD + "cats/1.png,0,0,9,9,ear\ncats/1.png,0,0,9,9,nose\n")
    rows = PROTOCOLS["boxes"].__class__(side="given", parts=("nose",)).rows(images)
    assert rows.select("label", "label_id").rows() == [("nose", 0)]


def test_keypoint_protocols_do_not_go_with_boxes(root: Path) -> None:
    images = load(root, HEAD + "cats/1.png,0,0,9,9,ear\n")
    with pytest.raises(
        UsageError, match=r"has boxes, which side=d of view parts .* --protocol boxes"
    ):
        PAPER.rows(images)


def test_images_of_other_splits_are_accepted(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "n01").mkdir(parents=True)
        noise_image(1).save(tmp_path / split / "n01" / "1.JPEG")
    table = tmp_path / "boxes.csv"
    table.write_text(HEAD + "train/n01/1.JPEG,0,0,9,9,ear\nval/n01/1.JPEG,0,0,5,5,ear\n")
    images = datasets.load("net", "imagenet", tmp_path, "val", boxes=table)
    assert BOXES.rows(images)["x1"].to_list() == [5.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,x0,y0,x1,y1\na,0,0,1,1\n", r"no column label. Expected: path, x0, y0, x1, y1, label"),
        (HEAD.replace("label", "label,score") + "a,0,0,1,1,b,3\n", "unknown column score. Expected:"),
        (HEAD + "cats/1.png,0,0,9,9,ear\ncats/1.png,9,0,9,5,ear\n", r"line 3: x1 is not greater than x0 \(path cats/1.png, box 9.0, 0.0, 9.0, 5.0; 1 such in all\)"),
        (HEAD + "cats/1.png,0,5,9,4,ear\n", "line 2: y1 is not greater than y0"),
        (HEAD + "cats/1.png,0,wide,9,4,ear\n", "line 2: y0 is not a number .*box 0.0, wide, 9, 4"),
        (HEAD + "cats/1.png,0,,9,4,ear\n", "line 2: y0 is not a number"),
        (HEAD + "cats/1.png,0,nan,9,4,ear\n", "line 2: y0 is not a number"),
        (HEAD + "cats/1.png,0,0,9,4,\n", "line 2: label is empty"),
        (HEAD, "holds no box"),
        ("", "boxes.csv is blank. Expected: a header line path,x0,y0,x1,y1,label"),
        ("\n\r\n", "boxes.csv is blank"),
        (HEAD + "cats/1.png,0,0,9,9\n", r"line 2: 5 fields. Expected: 6, as in the header line"),
        (HEAD + "\n\ncats/1.png,0,0,9,9,an ear, left\n", "line 4: 7 fields. Expected: 6"),
        (HEAD + '\n"cats/1.png",0,0,9,0,"two\nlines"\n', "line 4: the label holds a control char"),
        (HEAD + 'cats/1.png,0,0,9,9,"ear\n', "cannot be read as a table of boxes: unexpected end of"),
        (HEAD.replace("label", "label,label") + "a,0,0,1,1,b,b\n", "the header line names label twice"),
        (HEAD.replace("label", "label,a,b,c,d,e"), r"unknown column a, b, c, … \(5 in all\)"),
        (HEAD.replace(",", ";") * 9, r"unknown column path;x0;y0;x1;y1;label. .* Separate the columns"),
        ("x" * 500, r"unknown column x{60}…\. Expected"),
    ],
)  # fmt: skip
def test_faulty_tables_are_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        BOXES.rows(load(root, text))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", [["ear"]], r"column label is of the type List.* Expected: text or whole numbers"),
        ("label", [{"a": 1}], "column label is of the type Struct"),
        ("label", [0.5], "column label is of the type Float64"),
        ("path", [[1]], "column path is of the type List"),
        ("object", [b"a"], "column object is of the type Binary"),
        ("x0", [[1]], r"column x0 is of the type List\(Int64\). Expected: numbers"),
        ("x0", [{"a": 1}], "column x0 is of the type Struct"),
        ("x0", [True], "column x0 is of the type Boolean"),
        ("x0", [None], "row 0: x0 is not a number"),
        ("x0", [float("nan")], "row 0: x0 is not a number"),
        ("label", [None], "row 0: label is empty"),
        ("path", ["cats/\0.png"], r"row 0: the path holds a control .* \(path cats/\\x00.png, box"),
        ("part", [" ear"], "row 0: the part begins or ends with a space"),
        ("class", ["\u2028"], "row 0: the class begins or ends with"),
        ("object", ["a\x9bb"], "row 0: the object holds a control character"),
        ("part", ["x" * 201], "row 0: the part is longer than 200 characters"),
    ],
)  # fmt: skip
def test_faulty_parquet_tables_are_refused(
    root: Path, column: str, value: list[Any], message: str
) -> None:
    table = {"path": ["cats/1.png"], "x0": [1], "y0": [2], "x1": [30], "y1": [40], "label": ["ear"]}
    file = root.parent / "boxes.parquet"
    pl.DataFrame({**table, column: value}).write_parquet(file)
    with pytest.raises(AnnotationError, match=message):
        BOXES.rows(datasets.load("pets", "folder", root, boxes=file))


def test_empty_part_in_parquet_is_read_as_null(root: Path) -> None:
    table = {"path": ["cats/1.png"], "x0": [1], "y0": [2], "x1": [30], "y1": [40], "label": ["ear"]}
    file = root.parent / "boxes.parquet"
    pl.DataFrame({**table, "part": [""]}).write_parquet(file)
    rows = BOXES.rows(datasets.load("pets", "folder", root, boxes=file))
    assert rows["part"].to_list() == ["ear"]


def test_label_with_comma_is_selected_as_list(root: Path) -> None:
    images = load(root, HEAD + 'cats/1.png,0,0,9,9,"ear, left"\ncats/1.png,0,0,9,9,nose\n')
    with pytest.raises(UnknownNameError) as caught:
        replace(BOXES, parts="ear, left").rows(images)
    assert 'Known: "ear, left", nose.' in str(caught.value)
    assert "--view-option 'parts=[\"a, b\"]'" in str(caught.value)
    rows = replace(BOXES, parts=["ear, left"]).rows(images)
    assert rows["label"].to_list() == ["ear, left"]


def test_boxes_of_images_that_are_nowhere(root: Path) -> None:
    lines = "".join(f"cats/{n}.jpg,0,0,9,9,ear\n" for n in range(5))
    with pytest.raises(MissingError, match=r"names 5 images that are not under .*cats/2.jpg, …"):
        BOXES.rows(load(root, HEAD + lines))


@pytest.mark.parametrize("name", ["boxes", "boxes.csv", "boxes.parquet"])
def test_folder_is_not_a_table(root: Path, name: str) -> None:
    (root / name).mkdir()
    images = datasets.load("pets", "folder", root, boxes=root / name)
    with pytest.raises(AnnotationError, match=rf"{name} is a folder. Expected: the table of boxes"):
        BOXES.rows(images)


def test_tables_that_are_not_text_are_refused(root: Path) -> None:
    (root / "boxes.csv").write_bytes(b"path,\xff\xfe\n")
    (root / "boxes.parquet").write_bytes(b"path,x0\n")
    for name in ("boxes.csv", "boxes.parquet"):
        images = datasets.load("pets", "folder", root, boxes=root / name)
        with pytest.raises(AnnotationError, match=rf"{name} cannot be read as a table of boxes"):
            BOXES.rows(images)


def test_table_of_spreadsheet_is_read(root: Path) -> None:
    """With a byte-order mark, Windows line ends, quotes and blank lines."""
    images = load(
        root, "\ufeff" + (HEAD + '\n"cats/1.png",0,0,9,9,"ear, left"\n').replace("\n", "\r\n")
    )
    assert BOXES.rows(images)["label"].to_list() == ["ear, left"]


def test_missing_table_of_boxes_is_reported(root: Path) -> None:
    for name in ("no.csv", "no.parquet"):
        images = datasets.load("pets", "folder", root, boxes=root / name)
        with pytest.raises(MissingError, match=rf"the table of boxes .*{name} does not exist"):
            BOXES.rows(images)
