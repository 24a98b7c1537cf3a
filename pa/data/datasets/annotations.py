"""Read annotation files as text and JSON, and check their fields, ids and paths."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import TypeAdapter, ValidationError

from pa.errors import AnnotationError

T = TypeVar("T")

HIDDEN, VISIBLE = 1, 2  # the visibility v of COCO keypoints

FARTHEST = 1_000_000  # pixels: no image is larger, so a larger coordinate is an error in the file
CONTROL = r"[\p{Cc}\p{Zl}\p{Zp}]"  # in a name they would break a line or control a terminal

# A path that is empty or absolute, or contains . or .. as a folder.
PIECES = pl.col("path").str.split("/")
UNPLAIN = PIECES.list.eval(pl.element().is_in(["", ".", ".."])).list.any()

# First bytes of files that are not UTF-8 though they may have been made from a text file.
SIGNATURES = {
    b"\x1f\x8b": "it is compressed by gzip: unpack it",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
    b"BZh": "it is compressed by bzip2: unpack it",
    b"\xfd7zXZ": "it is compressed by xz: unpack it",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
}


def read_text(file: Path, encoding: str = "utf-8-sig") -> str:
    """Return the text of a file, without a byte-order mark.

    Raise `FileNotFoundError` if it does not exist, `AnnotationError` if it is a folder, a circular
    link, or in another encoding.
    """
    try:
        return file.read_text(encoding=encoding)
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        with file.open("rb") as raw:
            head = raw.read(8)
        known = next((text for sign, text in SIGNATURES.items() if head.startswith(sign)), None)
        what = known or f"byte {error.start} is {error.object[error.start]:#04x}: save it as UTF-8"
        raise AnnotationError(f"{file} is not a text file in UTF-8: {what}.") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise AnnotationError(f"{file} cannot be read: {reason}.") from None


def parse_json(
    text: str, file: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Parse the text of a JSON file. Raise `AnnotationError` for any other text."""
    try:
        return json.loads(text, object_hook=object_hook)
    except ValueError as error:
        raise AnnotationError(f"{file} is not JSON: {error}.") from None
    except RecursionError:
        raise AnnotationError(
            f"{file} cannot be read: the brackets of its JSON are nested too deeply."
        ) from None


def validated(model: type[T], content: Any, source: object) -> T:
    """Return parsed JSON as dataclasses of pydantic fields. Raise `AnnotationError` at a fault."""
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        first, n = error.errors(include_url=False)[0], error.error_count()
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        raise AnnotationError(
            f"{source}{where}: {first['msg']}; found {repr(first['input'])[:60]} ({n} such in all)."
        ) from None


def require_unique(table: pl.DataFrame, columns: list[str], source: object, what: str) -> None:
    """Raise `AnnotationError` if two rows of an annotation file have the same id."""
    duplicates = table.filter(table.select(columns).is_duplicated()).select(columns).unique()
    if len(duplicates):
        first = duplicates.sort(columns).row(0)
        shown = first[0] if len(first) == 1 else first
        raise AnnotationError(
            f"{source}: {what} {shown} occurs more than once ({len(duplicates)} such in all)."
        )


def require_plain_paths(paths: pl.Series, source: object) -> None:
    """Raise `AnnotationError` for a path that is `UNPLAIN`, or has a control character."""
    frame = pl.DataFrame({"path": paths})
    odd = frame.filter(UNPLAIN | pl.col("path").str.contains(CONTROL))["path"]
    if len(odd):
        raise AnnotationError(
            f"{source}: {odd[0]!r} is not a path below the root ({len(odd)} such in all)."
        )
