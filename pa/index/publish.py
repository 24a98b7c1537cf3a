"""Putting a finished index in its place: whole or not at all, with several builders at once."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from pa.data.files import (
    locked_partial,
    note_written,
    partial_path,
    remove_stale,
    storage_errors,
    sync,
)


@contextlib.contextmanager
def publishing(directory: Path) -> Iterator[Path]:
    """Give a partial directory to fill; it becomes `directory` when the block ends without error.

    What `directory` held at the start is replaced. Where another process has put a new one there
    in the meantime, theirs stays and ours is dropped: both were made from the same store.
    """
    outdated = _identity(directory)
    try:
        with storage_errors(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with locked_partial(directory, folder=True) as partial:
                yield partial
                for file in partial.iterdir():
                    sync(file)
                sync(partial)
                _put_in_place(partial, directory, outdated)
                sync(directory.parent)
        note_written(directory)
    finally:
        remove_stale(directory.parent, directory.name)


def _put_in_place(partial: Path, directory: Path, outdated: tuple[int, int] | None) -> None:
    retired = partial_path(directory)
    if outdated is not None and _identity(directory) == outdated:
        with contextlib.suppress(FileNotFoundError):
            directory.rename(retired)
    try:
        partial.rename(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    shutil.rmtree(retired, ignore_errors=True)


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns
