"""CUB-200-2011 in its official layout: 11,788 photographs of 200 bird species with 15 parts each.

Formats: the README of the release. Ids are those of its files, which begin at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

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

INDEX = "images.txt"  # image id, path below images/
SPLITS = "train_test_split.txt"  # image id, 1 for train or 0 for test
NAMES = "parts/parts.txt"  # part id, name
MAX_DIGITS = 18  # a number of 18 digits fits in 64 bits
LOCATIONS = "parts/part_locs.txt"  # image id, part id, x, y, visible


def list_splits(root: Path) -> list[str]:
    return ["train", "test", "all"] if (root / INDEX).is_file() else []


def read(root: Path, split: str) -> pl.DataFrame:
    """Read the images of a split; label = species with its number, label_id = its number minus 1.

    Listed files that do not exist have file_bytes -1: the extraction reports them. Raise
    `MissingError` for a missing list, `AnnotationError` for a faulty one.
    """
    listed = _index(root, split)
    files = list_images(root, "images") if (root / "images").is_dir() else None
    if files is None or listed.join(files, on="path", how="semi").is_empty():
        raise MissingError(
            f"{root}: none of the {len(listed)} images of {INDEX} exists. Expected:\n{LAYOUT}"
        )
    classes = _pairs(root, "classes.txt", "label_id", "label")  # 200 rows
    require_unique(classes, ["label"], root / "classes.txt", "class")
    labels = _pairs(root, "image_class_labels.txt", "id", "label_id", _whole, "a number")
    table = (
        listed.join(files, on="path", how="left")
        .join(labels, on="id", how="left")
        .join(classes, on="label_id", how="left")
        .with_columns(pl.col("file_bytes").fill_null(-1), pl.col("label_id") - 1)
    )
    _require_known(labels, _images(root), root / "image_class_labels.txt")
    unlabelled = table.filter(pl.col("label").is_null())  # no class of classes.txt
    if len(unlabelled):
        raise AnnotationError(
            f"{root / 'image_class_labels.txt'}: {len(unlabelled)} images have no class of "
            f"classes.txt; the first is image {unlabelled['id'][0]}."
        )
    return table.select("path", "label", "label_id", "file_bytes").sort("path")


def read_parts(root: Path, split: str) -> Keypoints:
    """Read the part locations of a split; the object is the id of the image, which has one bird.

    Raise `MissingError` for a missing list, `AnnotationError` for a faulty one: every part of
    parts.txt needs one line for every image, visible or not.
    """
    names = _pairs(root, NAMES, "part_id", "part")  # 15 rows
    require_unique(names, ["part"], root / NAMES, "part")
    lacking = [name for name in CONSIDERED if name not in names["part"]]
    if lacking:
        raise AnnotationError(
            f"{root / NAMES} does not name {', '.join(lacking)}. Expected among its parts: "
            f"{', '.join(CONSIDERED)}; found: {', '.join(names['part'])}. Take the parts.txt of "
            f"the release."
        )
    kinds = dict.fromkeys(("line", "id", "part_id", "x", "y", "visible"), pl.Int64())
    schema = {**kinds, "x": pl.Float64(), "y": pl.Float64()}
    locations = pl.DataFrame(list(_locations(root / LOCATIONS)), schema, orient="row")
    _check_locations(root, locations, names)
    table = (
        locations.join(_index(root, split), on="id", how="inner")
        .join(names, on="part_id", how="left")
        .with_columns(
            object="id",
            visible=pl.col("visible") * VISIBLE,  # 1 → 2, as in COCO
            width=pl.lit(None, pl.Int64),  # not in the release
            height=pl.lit(None, pl.Int64),
        )
    )
    return Keypoints(table.select(*KEYPOINT_SCHEMA), tuple(names["part"]), CONSIDERED)


def _check_locations(root: Path, locations: pl.DataFrame, names: pl.DataFrame) -> None:
    """Raise `AnnotationError` unless every image has exactly one line for every part."""
    file = root / LOCATIONS
    require_unique(locations, ["id", "part_id"], file, "image and part")
    unknown = locations.join(names, on="part_id", how="anti", maintain_order="left")
    if len(unknown):
        raise AnnotationError(
            f"{file}, line {unknown['line'][0]}: part {unknown['part_id'][0]} is not in parts.txt."
        )
    index = _images(root)  # id, path
    _require_known(locations, index, file)
    counts = index.join(
        locations.group_by("id").len("n"), on="id", how="left", maintain_order="left"
    )
    short = counts.filter(pl.col("n").fill_null(0) < len(names))  # images without lines have a null
    if len(short):
        n = short["n"].fill_null(0)[0]
        raise AnnotationError(
            f"{file}: {n} lines of image {short['id'][0]} ({short['path'][0]}). Expected: one for "
            f"each of the {len(names)} parts, visible or not; found fewer for {len(short)} images. "
            f"Take the file of the release."
        )


def _index(root: Path, split: str) -> pl.DataFrame:
    """Read id and path (relative to root) of the images of a split."""
    index = _images(root)  # id, path
    if split == "all":
        return index
    flags = _pairs(root, SPLITS, "id", "train", ("0", "1").index, "0 (test) or 1 (train)")
    unknown = index.join(flags, on="id", how="anti", maintain_order="left")
    if len(unknown):
        raise AnnotationError(
            f"{root / SPLITS}: no line for image {unknown['id'][0]} ({unknown['path'][0]}), and "
            f"{len(unknown)} such images in all. Expected: one line for every image of {INDEX}. "
            f"Take the file of the release."
        )
    _require_known(flags, index, root / SPLITS)
    wanted = flags.filter(pl.col("train") == (1 if split == "train" else 0))
    return index.join(wanted, on="id", how="semi", maintain_order="left")


def _require_known(lines: pl.DataFrame, index: pl.DataFrame, file: Path) -> None:
    """Raise `AnnotationError` for a line about an image that images.txt does not list."""
    unknown = lines.join(index, on="id", how="anti", maintain_order="left")
    if len(unknown):
        where = f"{file}, line {unknown['line'][0]}" if "line" in unknown.columns else file
        raise AnnotationError(
            f"{where}: image {unknown['id'][0]} is not in {INDEX} ({len(unknown)} such lines in "
            f"all). Both files must be of one release."
        )


def _images(root: Path) -> pl.DataFrame:
    """Read id and path (relative to root) of all images."""
    index = _pairs(root, INDEX, "id", "path")
    require_unique(index, ["path"], root / INDEX, "image file")
    require_plain_paths(index["path"], root / INDEX)
    return index.with_columns(path=pl.lit("images/") + pl.col("path"))


def _whole(word: str) -> int:
    """Read a number as the release writes it: digits, no sign, within 64 bits."""
    if not (word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS):
        raise ValueError(word)
    return int(word)


def _number(word: str) -> float:
    """Read a number in ASCII; Python's `float` takes `1_0` and digits of other scripts too."""
    if not word.isascii() or "_" in word:
        raise ValueError(word)
    return float(word)


def _pairs(
    root: Path,
    file: str,
    key: str,
    value: str,
    parse: Callable[[str], int | str] = str,
    expected: str = "a name",
) -> pl.DataFrame:
    """Read a file of lines `<id> <value>` with unique ids; `parse` raises `ValueError`."""
    rows = []
    for number, line in _lines(root / file):
        words = line.split(maxsplit=1)
        try:
            rows.append((_whole(words[0]), parse(words[1].strip())))
        except (ValueError, IndexError):
            raise _faulty(root / file, number, line, f"an id and {expected}") from None
    schema = {key: pl.Int64(), value: pl.String() if parse is str else pl.Int64()}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    require_unique(table, [key], root / file, "id")
    return table


def _locations(file: Path) -> Iterator[tuple[int, int, int, float, float, int]]:
    """Yield line number, image id, part id, x, y and visible of every line."""
    for number, line in _lines(file):
        try:
            image, part, x, y, visible = line.split()
            row = (number, _whole(image), _whole(part), _number(x), _number(y), _whole(visible))
        except ValueError:
            row = None
        if row is None or row[5] not in (0, 1) or not all(abs(v) <= FARTHEST for v in row[3:5]):
            expected = (
                f"image id, part id, x, y (pixels within ±{FARTHEST:,}), and visible as 0 or 1"
            )
            raise _faulty(file, number, line, expected)
        yield row


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers."""
    try:
        text = read_text(file)
    except FileNotFoundError:
        raise MissingError(f"{file} does not exist. Expected:\n{LAYOUT}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line


def _faulty(file: Path, number: int, line: str, expected: str) -> AnnotationError:
    return AnnotationError(f"{file}, line {number}: {line[:60]!r}. Expected: {expected}.")
