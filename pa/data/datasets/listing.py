"""Listing the image files of a folder tree, the same on every machine."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pa.data.datasets.text import read_text
from pa.data.images import IMAGE_SUFFIXES
from pa.errors import AnnotationError, MissingError, UsageError

SCHEMA = {"path": pl.String(), "file_bytes": pl.Int64()}


def list_images(root: Path, below: str = "") -> pl.DataFrame:
    """All image files under `root/below`: path relative to root (POSIX), size in bytes.

    Files are taken by suffix, whatever they hold: what cannot be decoded is found, counted and
    reported by the extraction, not here. Hidden files and folders are left out, links to folders
    are followed. Raises `UsageError` for a link to a folder that holds it, and for names that no
    table can hold.
    """
    found = list(_walk(root / below, f"{below}/" if below else "", ()))
    for path, _ in found:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
            raise UsageError(
                f"the file name {path!r} under {root} holds control characters or is not UTF-8. "
                f"Rename it: row tables and reports cannot name it."
            )
    return pl.DataFrame(found, schema=SCHEMA, orient="row").sort("path")


def read_ids(path: Path) -> list[str]:
    """The image ids of a split's list (the first word of each line), sorted.

    Raises `MissingError` for a list without an id, `AnnotationError` for a file that is no text, an
    id that stands twice, or one that is no plain file name.
    """
    ids = sorted(line.split()[0] for line in read_text(path).splitlines() if line.strip())
    if not ids:
        raise MissingError(
            f"{path} holds no image id. Expected: the list of the release, one id on each line."
        )
    for before, name in itertools.pairwise(["", *ids]):
        if name == before:
            raise AnnotationError(f"{path} names {name} twice. Each image stands there once.")
        if "/" in name or name in (".", ".."):
            raise AnnotationError(f"{path}: {name!r} is a path, not the id of an image.")
    return ids


def subfolders(root: Path) -> list[str]:
    """The names of the visible folders in `root`, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, int]]:
    """The images of a folder, and of those in it; `above` are the folders that led here."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise UsageError(
            f"{folder} is a link to a folder that holds it: its images would be listed again and "
            f"again. Remove the link, or choose a root without it."
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, here))
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield f"{prefix}{entry.name}", _size(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a dangling link: listed, and reported as unreadable by the extraction
        return -1
