"""Move a finished index into place atomically, also with several builders at once."""

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
    """Yield a partial directory; it becomes `directory` when the block ends without error.

    The directory replaces the one that existed at the start. If another process has published a
    newer one in the meantime, that one stays: both were built from the same store.
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
                retired = partial_path(directory)
                if outdated is not None and _identity(directory) == outdated:
                    with contextlib.suppress(FileNotFoundError):
                        directory.rename(retired)
                try:
                    partial.rename(directory)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise  # not the directory that another process has just published
                shutil.rmtree(retired, ignore_errors=True)
                sync(directory.parent)
        note_written(directory)
    finally:
        remove_stale(directory.parent, directory.name)


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns
