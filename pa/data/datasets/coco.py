"""COCO 2017 person keypoints: 118,287 + 5,000 photographs, 17 keypoints per person.

Format: https://cocodataset.org/#format-data. A keypoint is x, y, v with v = 0 not labelled,
1 labelled but hidden, 2 labelled and visible.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field, StrictInt, StrictStr

from pa.data.datasets.annotations import (
    FARTHEST,
    VISIBLE,
    parse_json,
    read_text,
    require_plain_paths,
    require_unique,
    validated,
)
from pa.data.datasets.listing import list_images
from pa.data.schema import KEYPOINT_SCHEMA, Keypoints
from pa.errors import AnnotationError, MissingError

LAYOUT = """  <root>/images/<split>/*.jpg   or   <root>/<split>/*.jpg     split: train2017, val2017
  <root>/annotations/person_keypoints_<split>.json"""

# The parts of the paper (A.2), in the order of the released code: the position is the label id.
CONSIDERED = ("nose", "right_wrist", "left_ankle")

PREFIX = "person_keypoints_"  # of the names of annotation files
NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)


def list_splits(root: Path) -> list[str]:
    """List the splits that have both annotations and a folder of images."""
    files = sorted((root / "annotations").glob(f"{PREFIX}*.json"))
    names = [file.stem.removeprefix(PREFIX) for file in files]
    plain = [name for name in names if name and not name.startswith(".")]
    return [name for name in plain if _folder(root, name) is not None]


def read(root: Path, split: str) -> pl.DataFrame:
    """Read all images that the annotations list, with or without persons, without a label.

    Listed files that do not exist have file_bytes -1: the extraction reports them.
    """
    folder = _folder(root, split)
    if folder is None:
        raise MissingError(f"{root}: no folder of images {split}. Expected:\n{LAYOUT}")
    listed = _parse(root, split).images.select(path=pl.lit(f"{folder}/") + pl.col("file_name"))
    files = list_images(root, folder)
    if listed.join(files, on="path", how="semi").is_empty():
        raise MissingError(
            f"{root / folder}: none of the {len(listed)} images that the annotations list "
            f"exists. Expected:\n{LAYOUT}"
        )
    table = listed.join(files, on="path", how="left").select(
        "path",
        pl.lit(None, pl.String).alias("label"),
        pl.lit(None, pl.Int64).alias("label_id"),
        pl.col("file_bytes").fill_null(-1),  # the file does not exist
    )
    return table.sort("path")


def read_parts(root: Path, split: str) -> Keypoints:
    """Read the keypoints of all persons of a split; the object is the id of the annotation."""
    parsed = _parse(root, split)
    path = pl.lit(f"{_folder(root, split)}/") + pl.col("file_name")
    images = parsed.images.select("image_id", "width", "height", path=path)
    table = parsed.keypoints.join(images, on="image_id", how="left", maintain_order="left")
    return Keypoints(table.select(*KEYPOINT_SCHEMA).cast(KEYPOINT_SCHEMA), NAMES, CONSIDERED)  # type: ignore[arg-type]


def _folder(root: Path, split: str) -> str | None:
    return next((f for f in (f"images/{split}", split) if (root / f).is_dir()), None)


# The fields that are read. `StrictInt` refuses text, true and 1.0.
Id = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]  # as a table can hold
Side = Annotated[StrictInt, Field(ge=1, le=FARTHEST)]  # pixels


@dataclass(slots=True)
class _Image:
    id: Id
    file_name: Annotated[StrictStr, Field(min_length=1)]
    width: Side
    height: Side


@dataclass(slots=True)
class _Person:
    id: Id
    image_id: Id
    category_id: StrictInt
    keypoints: Any  # the array of `_slim`


@dataclass(slots=True)
class _Category:
    id: Id
    keypoints: list[str] | None = None


class _Parsed(NamedTuple):
    """image_id, file_name, width, height; and image_id, object, part, x, y, visible."""

    images: pl.DataFrame
    keypoints: pl.DataFrame


def _parse(root: Path, split: str) -> _Parsed:
    file = root / "annotations" / f"{PREFIX}{split}.json"
    try:
        state = file.stat()
    except FileNotFoundError:
        raise MissingError(f"{file} does not exist. Expected:\n{LAYOUT}") from None
    except OSError as error:  # such as circular links
        raise AnnotationError(f"{file} cannot be read: {error.strerror}.") from None
    return _parse_file(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)  # the train file is 240 MB of JSON, read for images and for keypoints
def _parse_file(file: Path, mtime_ns: int, size: int) -> _Parsed:
    """Raise `AnnotationError` unless all annotations are keypoints of persons, as COCO's are."""
    content = _load(file)
    listed = content["annotations"]
    categories = validated(list[_Category], content["categories"], f"{file}: categories")
    names = next((c.keypoints for c in categories if c.keypoints is not None), None)
    if names is None or not all(isinstance(e, dict) and "keypoints" in e for e in listed):
        raise AnnotationError(
            f"{file} holds no person keypoints{_looks_like(content)}. Expected: the content of "
            f"the official person_keypoints_*.json, where each annotation has `keypoints`."
        )
    if names != list(NAMES):
        raise AnnotationError(
            f"{file}: its keypoints are {names}. Expected the 17 of COCO: {', '.join(NAMES)}."
        )
    numbers = [c.id for c in categories if c.keypoints == names]
    if len(numbers) != 1:
        raise AnnotationError(
            f"{file}: the categories with the keypoints of a person have the ids {numbers}. "
            f"Expected: one category."
        )
    # After the checks above, which recognise other files of COCO by their fields.
    persons = validated(list[_Person], listed, f"{file}: annotations")
    if others := [entry for entry in persons if entry.category_id != numbers[0]]:
        raise AnnotationError(
            f"{file}: {len(others)} annotations are not of the category {numbers[0]}, which has "
            f"the keypoints; the first is annotation {others[0].id} of category "
            f"{others[0].category_id}. Expected: annotations of persons only."
        )
    entries = validated(list[_Image], content["images"], f"{file}: images")
    rows = [(entry.id, entry.file_name, entry.width, entry.height) for entry in entries]
    schema = {"image_id": pl.Int64, "file_name": pl.String, "width": pl.Int64, "height": pl.Int64}
    images = pl.DataFrame(rows, schema=schema, orient="row")
    require_unique(images, ["image_id"], file, "image id")
    require_unique(images, ["file_name"], file, "image file")
    require_plain_paths(images["file_name"], file)
    return _Parsed(images, _keypoints(file, persons, images))


def _load(file: Path) -> dict[str, Any]:
    # As text: bytes would stay in memory next to the text that json makes of them.
    text = read_text(file)
    try:
        content = parse_json(text, file, object_hook=_slim)
    except (TypeError, OverflowError) as error:  # of `_slim`
        raise AnnotationError(
            f"{file}: an entry does not have the format of COCO ({type(error).__name__}: {error})."
        ) from None
    missing = [
        name
        for name in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(name), list)
    ]
    if missing:
        raise AnnotationError(
            f"{file} has no list of {', '.join(missing)}{_looks_like(content)}. Expected: a COCO "
            f"annotation file, the official person_keypoints_*.json."
        )
    return content  # type: ignore[no-any-return]


# Most of the size of instances and panoptic files: only their presence is used.
OUTLINES = ("segmentation", "segments_info")
# The fields that are read, and those that identify other kinds of file.
USED = ("id", "image_id", "category_id", "keypoints", "caption", *OUTLINES)


def _slim(entry: dict[str, Any]) -> dict[str, Any]:
    """Keep the used fields of an annotation: keypoints as an array, outlines as None.

    Other objects are unchanged. Raise `TypeError` if a keypoint holds anything but numbers.
    """
    if "image_id" not in entry:
        return entry
    slim = {name: entry[name] for name in USED if name in entry}
    slim.update((name, None) for name in OUTLINES if name in slim)
    if "keypoints" in slim:
        if bool in map(type, slim["keypoints"]):
            raise TypeError("a keypoint is true or false instead of a number")
        slim["keypoints"] = array("d", slim["keypoints"])  # 8 bytes per number, not 32
    return slim


def _looks_like(content: Any) -> str:
    """Return which other file of COCO this seems to be, in brackets, or nothing."""
    entries = content.get("annotations") if isinstance(content, dict) else None
    first = entries[0] if isinstance(entries, list) and entries else None
    kinds = {"caption": "captions", "segments_info": "panoptic", "segmentation": "instances"}
    if isinstance(first, dict):
        for field, kind in kinds.items():
            if field in first:
                return f" (it looks like {kind}_*.json)"
    return ""


def _keypoints(file: Path, persons: Sequence[_Person], images: pl.DataFrame) -> pl.DataFrame:
    """Return the 17 keypoints of every person, in the order of the file."""
    schema = {"object": pl.Int64, "image_id": pl.Int64}
    rows = [(person.id, person.image_id) for person in persons]
    ids = pl.DataFrame(rows, schema, orient="row")
    require_unique(ids, ["object"], file, "annotation id")
    lost = ids.join(images, on="image_id", how="anti")  # persons in images that are not listed
    if len(lost):
        raise AnnotationError(
            f"{file}: {len(lost)} annotations are of images that it does not list; the first is "
            f"annotation {lost['object'][0]} of image {lost['image_id'][0]}."
        )
    n = len(NAMES)

    def require(fits: Any, what: str) -> None:
        if not fits.all():
            person = persons[int(fits.argmin()) // (len(fits) // len(persons))]
            raise AnnotationError(f"{file}: the keypoints of annotation {person.id} {what}.")

    shape = f"are not {n} times x, y and v = 0, 1 or 2"
    require(np.array([len(person.keypoints) == 3 * n for person in persons]), shape)
    values = np.array([person.keypoints for person in persons], np.float64)
    values = values.reshape(-1, 3)  # (persons · 17, 3)
    near = (np.abs(values) <= FARTHEST).all(axis=1)  # false also for NaN
    require(near, f"are not numbers of pixels within ±{FARTHEST:,}")
    require(np.isin(values[:, 2], (0, 1, VISIBLE)), shape)
    each = ids.select(pl.all().repeat_by(n)).explode("object", "image_id")  # one row per keypoint
    return each.with_columns(
        pl.Series("part", list(NAMES) * len(persons), dtype=pl.String),
        pl.Series("x", values[:, 0]),
        pl.Series("y", values[:, 1]),
        pl.Series("visible", values[:, 2].astype(np.int64)),
    )
