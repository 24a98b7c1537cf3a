"""Annotation files as text and as JSON, with errors that say what a file is instead."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pa.errors import AnnotationError

# First bytes of what is not UTF-8 though a person may have made it from a text file.
SIGNATURES = {
    b"\x1f\x8b": "it is compressed by gzip: unpack it",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
    b"BZh": "it is compressed by bzip2: unpack it",
    b"\xfd7zXZ": "it is compressed by xz: unpack it",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
}


def read_text(file: Path, encoding: str = "utf-8-sig") -> str:
    """The text of a file, without a byte-order mark.

    Raises `FileNotFoundError` where it is not there, `AnnotationError` where it is a folder, a link
    in a circle, or in another encoding.
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
    """The content of a JSON file. Raises `AnnotationError` for any other text."""
    try:
        return json.loads(text, object_hook=object_hook)
    except ValueError as error:
        raise AnnotationError(f"{file} is not JSON: {error}.") from None
    except RecursionError:
        raise AnnotationError(
            f"{file} is not JSON that can be read: its brackets are nested too deeply."
        ) from None
