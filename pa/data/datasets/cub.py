"""CUB-200-2011 in its official layout: 11,788 photographs of 200 bird species with 15 parts each.

Formats: the README of the release. Ids are those of its files, which begin at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pa.data.datasets.annotations import (
    FARTHEST,
    VISIBLE,
    read_text,
    require_plain_paths,
    require_unique,
)
from pa.data.datasets.listing import list_images
from pa.data.schema import KEYPOINT_SCHEMA, Keypoints
from pa.errors import AnnotationError, MissingError

LAYOUT = """  <root>/images/<class>/*.jpg
  <root>/images.txt  image_class_labels.txt  train_test_split.txt  classes.txt
  <root>/parts/parts.txt  parts/part_locs.txt     (for view parts)
(CUB_200_2011.tgz, unpacked; splits: train, test, and all, which is the retrieval database)"""

# The parts of the paper (A.2), in the order of the released code: the position is the label id.
CONSIDERED = ("right eye", "right leg", "left wing", "tail")
MAX_DIGITS = 18  # a number of 18 digits fits in 64 bits


def _whole(word: str) -> int:
    """Read a number as the release writes it: digits, no sign, within 64 bits."""
    if not (word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS):
        raise ValueError(word)
    return int(word)


def _pixels(word: str) -> float:
    """Read a coordinate in ASCII; Python's `float` takes `1_0` and digits of other scripts too."""
    if not word.isascii() or "_" in word or not abs(float(word)) <= FARTHEST:  # also NaN
        raise ValueError(word)
    return float(word)


class _File(NamedTuple):
    """A file of the release: its columns in order, and the same in words for messages."""

    name: str
    columns: Mapping[str, Callable[[str], Any]]
    expected: str


TYPES: dict[Any, pl.DataType] = {str.strip: pl.String(), _pixels: pl.Float64()}  # others: integers

IMAGES = _File("images.txt", {"id": _whole, "path": str.strip}, "an id and a name")
CLASSES = _File("classes.txt", {"label_id": _whole, "label": str.strip}, "an id and a name")
LABELS = _File("image_class_labels.txt", {"id": _whole, "label_id": _whole}, "an id and a number")
SPLITS = _File(
    "train_test_split.txt",
    {"id": _whole, "train": ("0", "1").index},
    "an id and 0 (test) or 1 (train)",
)
PARTS = _File("parts/parts.txt", {"part_id": _whole, "part": str.strip}, "an id and a name")
LOCATIONS = _File(
    "parts/part_locs.txt",
    {"id": _whole, "part_id": _whole, "x": _pixels, "y": _pixels, "visible": ("0", "1").index},
    f"image id, part id, x, y (pixels within ±{FARTHEST:,}), and visible as 0 or 1",
)


def list_splits(root: Path) -> list[str]:
    return ["train", "test", "all"] if (root / IMAGES.name).is_file() else []


def read(root: Path, split: str) -> pl.DataFrame:
    """Read the images of a split; label = species with its number, label_id = its number minus 1.

    Listed files that do not exist have file_bytes -1: the extraction reports them. Raise
    `MissingError` for a missing list, `AnnotationError` for a faulty one.
    """
    listed = _images(root, split)
    files = list_images(root, "images") if (root / "images").is_dir() else None
    if files is None or listed.join(files, on="path", how="semi").is_empty():
        raise MissingError(
            f"{root}: none of the {len(listed)} images of {IMAGES.name} exists. Expected:\n{LAYOUT}"
        )
    classes = _read(root, CLASSES, "label_id")  # 200 rows
    require_unique(classes, ["label"], root / CLASSES.name, "class")
    labels = _read(root, LABELS, "id")
    _check_lines(root, LABELS.name, labels, 0)
    table = (
        listed.join(files, on="path", how="left")
        .join(labels, on="id", how="left")
        .join(classes, on="label_id", how="left")
        .with_columns(pl.col("file_bytes").fill_null(-1), pl.col("label_id") - 1)
    )
    unlabelled = table.filter(pl.col("label").is_null())  # no class of classes.txt
    if len(unlabelled):
        raise AnnotationError(
            f"{root / LABELS.name}: {len(unlabelled)} images have no class of {CLASSES.name}; the "
            f"first is image {unlabelled['id'][0]}."
        )
    return table.select("path", "label", "label_id", "file_bytes").sort("path")


def read_parts(root: Path, split: str) -> Keypoints:
    """Read the part locations of a split; the object is the id of the image, which has one bird.

    Raise `MissingError` for a missing list, `AnnotationError` for a faulty one: every part of
    parts.txt needs one line for every image, visible or not.
    """
    names = _read(root, PARTS, "part_id")  # 15 rows
    require_unique(names, ["part"], root / PARTS.name, "part")
    lacking = [name for name in CONSIDERED if name not in names["part"]]
    if lacking:
        raise AnnotationError(
            f"{root / PARTS.name} does not name {', '.join(lacking)}. Expected among its parts: "
            f"{', '.join(CONSIDERED)}; found: {', '.join(names['part'])}. Take the parts.txt of "
            f"the release."
        )
    locations = _read(root, LOCATIONS, "id", "part_id")
    unknown = locations.join(names, on="part_id", how="anti", maintain_order="left")
    if len(unknown):
        raise AnnotationError(
            f"{root / LOCATIONS.name}, line {unknown['line'][0]}: part {unknown['part_id'][0]} is "
            f"not in parts.txt."
        )
    _check_lines(root, LOCATIONS.name, locations, len(names))
    table = (
        locations.join(_images(root, split), on="id", how="inner")
        .join(names, on="part_id", how="left")
        .with_columns(
            object="id",
            visible=pl.col("visible") * VISIBLE,  # 1 → 2, as in COCO
            width=pl.lit(None, pl.Int64),  # not in the release
            height=pl.lit(None, pl.Int64),
        )
    )
    return Keypoints(table.select(*KEYPOINT_SCHEMA), tuple(names["part"]), CONSIDERED)


def _images(root: Path, split: str = "all") -> pl.DataFrame:
    """Read id and path (relative to root) of the images of a split."""
    index = _read(root, IMAGES, "id").drop("line")
    require_unique(index, ["path"], root / IMAGES.name, "image file")
    require_plain_paths(index["path"], root / IMAGES.name)
    index = index.with_columns(path=pl.lit("images/") + pl.col("path"))
    if split == "all":
        return index
    flags = _read(root, SPLITS, "id")
    _check_lines(root, SPLITS.name, flags, 1)
    wanted = flags.filter(pl.col("train") == (1 if split == "train" else 0))
    return index.join(wanted, on="id", how="semi", maintain_order="left")


def _check_lines(root: Path, file: str, lines: pl.DataFrame, n: int) -> None:
    """Raise `AnnotationError` unless every line is of a listed image, and every image has n."""
    index = _images(root)
    unknown = lines.join(index, on="id", how="anti", maintain_order="left")
    if len(unknown):
        raise AnnotationError(
            f"{root / file}, line {unknown['line'][0]}: image {unknown['id'][0]} is not in "
            f"{IMAGES.name} ({len(unknown)} such lines in all). Both files must be of one release."
        )
    counted = lines.group_by("id").len("n")
    counts = index.join(counted, on="id", how="left", maintain_order="left")
    short = counts.with_columns(pl.col("n").fill_null(0)).filter(pl.col("n") < n)
    if len(short):
        raise AnnotationError(
            f"{root / file}: {short['n'][0]} lines of image {short['id'][0]} ({short['path'][0]}). "
            f"Expected: {n} for every image of {IMAGES.name}; {len(short)} images have fewer. Take "
            f"the file of the release."
        )


def _read(root: Path, file: _File, *key: str) -> pl.DataFrame:
    """Read a file as its columns and `line`, the number of each line; `key` columns are unique."""
    path = root / file.name
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist. Expected:\n{LAYOUT}") from None
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split(maxsplit=len(file.columns) - 1)  # a name may hold spaces
        try:
            pairs = zip(file.columns.values(), words, strict=True)
            rows.append((number, *(parse(word.strip()) for parse, word in pairs)))
        except ValueError:
            raise AnnotationError(
                f"{path}, line {number}: {line[:60]!r}. Expected: {file.expected}."
            ) from None
    schema = {name: TYPES.get(parse, pl.Int64()) for name, parse in file.columns.items()}
    frame = pl.DataFrame(rows, {"line": pl.Int64(), **schema}, orient="row")
    require_unique(frame, list(key), path, "id" if len(key) == 1 else "image and part")
    return frame
