"""The files of a report, written all or none."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pa.data.files import locked_partial, sync
from pa.errors import StorageError

_REASONS = {
    errno.EEXIST: "a file is in the place of the folder",
    errno.ENOTDIR: "a file is in the place of a folder on the way",
    errno.ENOENT: "this folder cannot be made there",
}


def write_all(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, which is made if need be; their paths, in the order given.

    All are written beside their places first and moved there once every one is on disk, so that a
    reader never meets a page of one report with the tables of another. Raises `StorageError` and
    leaves what was there, and no folder that was not.
    """
    made = _missing(folder)
    paths = [folder / name for name in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as partials:
            waiting: list[tuple[Path, Path]] = []
            for path, data in zip(paths, files.values(), strict=True):
                if path.is_dir():
                    raise IsADirectoryError(0, "a folder is in the place of the file", str(path))
                partial = partials.enter_context(locked_partial(path))
                partial.write_bytes(data)
                sync(partial)
                waiting.append((partial, path))
            for partial, path in waiting:
                partial.replace(path)
            sync(folder)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise StorageError(
            f"cannot write the report to {folder}: {reason}{_where(folder, error)}. Nothing of it "
            f"was written, and files of an earlier report are as they were. Free some space, give "
            f"write permission, or choose another folder with --out DIR."
        ) from error
    finally:
        _remove_empty(made)
    return paths


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _missing(folder: Path) -> list[Path]:
    """The folders that writing into one would make, the innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def _where(folder: Path, error: OSError) -> str:
    """The path that failed, where it is one that the reader knows of, and not the folder."""
    path = str(error.filename or "")
    told = path and not path.endswith(".partial") and Path(path) != folder
    return f" ({path})" if told else ""
