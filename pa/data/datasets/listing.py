"""List the image files of a folder tree, in the same order on every machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pa.data.datasets.annotations import read_text
from pa.data.images import IMAGE_SUFFIXES
from pa.errors import AnnotationError, MissingError, UsageError

SCHEMA = {"path": pl.String(), "file_bytes": pl.Int64()}  # path relative to the root


def list_images(root: Path, below: str = "") -> pl.DataFrame:
    """List all image files under `root/below`: path relative to root (POSIX), size in bytes.

    Files are selected by suffix, whatever they hold: the extraction reports those that cannot be
    decoded. Hidden files and folders are skipped, links to folders are followed. Raise `UsageError`
    for a link to a folder that contains it, and for names that no table can hold.
    """
    files = list(_walk(root / below, f"{below}/" if below else "", ()))
    for path, _ in files:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
            raise UsageError(
                f"the file name {path!r} under {root} holds control characters or is not UTF-8. "
                f"Rename it: row tables and reports cannot name it."
            )
    return pl.DataFrame(files, schema=SCHEMA, orient="row").sort("path")


def read_ids(path: Path) -> list[str]:
    """Read the image ids of a split's list (the first word of each line), sorted.

    Raise `MissingError` for a list without an id, `AnnotationError` for a faulty one.
    """
    ids = sorted(line.split()[0] for line in read_text(path).splitlines() if line.strip())
    if not ids:
        raise MissingError(
            f"{path} holds no image id. Expected: the list of the release, one id on each line."
        )
    for before, name in itertools.pairwise(["", *ids]):
        if name == before:
            raise AnnotationError(f"{path} names {name} twice. Expected: each image once.")
        if "/" in name or name in (".", ".."):
            raise AnnotationError(f"{path}: {name!r} is a path, not the id of an image.")
    return ids


def subfolders(root: Path) -> list[str]:
    """List the names of the visible folders in `root`, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, int]]:
    """Yield the images below a folder; `above` are its parents, to detect a circular link."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise UsageError(
            f"{folder} is a link to a folder that contains it: its images would be listed "
            f"endlessly. Remove the link, or choose a root without it."
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):  # hidden
                continue
            is_folder, size = False, -1
            # A circular or dangling link raises: the extraction reports it as unreadable.
            with contextlib.suppress(OSError):
                is_folder = entry.is_dir()
                size = entry.stat().st_size
            if is_folder:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, identity))
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield f"{prefix}{entry.name}", size
