"""Write a report: all of its files, or none of them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pa.data.files import locked_partial, parquet_bytes, sync
from pa.errors import StorageError, UnknownNameError
from pa.progress import Progress
from pa.report.html import page
from pa.report.latex import latex, latex_figures
from pa.report.markdown import markdown, markdown_figures
from pa.report.numbers import tables_of
from pa.report.report import Report

FORMATS = ("html", "md", "latex", "csv", "parquet")
# What an error of the operating system means for the folder of a report.
_REASONS = {
    errno.EEXIST: "a file has the name of the folder",
    errno.ENOTDIR: "a file has the name of a parent folder",
    errno.ENOENT: "the folder cannot be created",
}


def write_report(
    report: Report, folder: Path, formats: Sequence[str], progress: Progress
) -> list[Path]:
    """Write a report in some formats (empty: all) and return the paths.

    Raises `UnknownNameError` for a format, and `StorageError`; then no file is written.
    """
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format of a report", name, FORMATS)
    chosen = [name for name in FORMATS if name in (formats or FORMATS)]
    files: dict[str, bytes] = {}
    progress.start("writing the report", len(chosen), "formats")
    try:
        for name in chosen:
            for file, content in _files(name, report, folder).items():
                # Bytes of file names that are not UTF-8 are escaped.
                if isinstance(content, str):
                    content = content.encode("utf-8", "backslashreplace")
                files[file] = content
            progress.advance(1)
    finally:
        progress.stop()
    return write_all(folder, files)


def _files(name: str, report: Report, folder: Path) -> Mapping[str, str | bytes]:
    """Return the files of a format by name; links in them are relative to the folder."""
    if name == "html":
        return {"report.html": page(report)}
    if name == "md":
        return {"report.md": f"{markdown(report)}\n{markdown_figures(report.figures, folder)}"}
    if name == "latex":
        figures = latex_figures(report.figures, folder, report.version)
        return {"tables.tex": latex(report), "figures.tex": figures}
    tables = tables_of(report).items()
    if name == "csv":
        return {f"{table}.csv": frame.write_csv() for table, frame in tables}
    return {f"{table}.parquet": parquet_bytes(frame) for table, frame in tables}


def write_all(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, which is created if needed, and return their paths.

    Every file is on disk under a temporary name before the first is renamed, so that the files of
    two reports are never mixed. Raises `StorageError`; earlier files are kept then, and a created
    folder is removed.
    """
    created = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    paths = [folder / name for name in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All locks are held until the last rename: a second report waits, and files never mix.
        with contextlib.ExitStack() as partials:
            written: list[tuple[Path, Path]] = []
            for path, data in zip(paths, files.values(), strict=True):
                if path.is_dir():
                    raise IsADirectoryError(0, "a folder has the name of the file", str(path))
                partial = partials.enter_context(locked_partial(path))
                partial.write_bytes(data)
                sync(partial)
                written.append((partial, path))
            for partial, path in written:
                partial.replace(path)
            sync(folder)  # the renames survive a power failure
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        # A temporary name means nothing to the user, and the folder is already in the message.
        name = str(error.filename or "")
        if name and not name.endswith(".partial") and Path(name) != folder:
            reason += f" ({name})"
        raise StorageError(
            f"cannot write the report to {folder}: {reason}. No file was written, and files of an "
            f"earlier report are unchanged. Free some space, give write permission, or choose "
            f"another folder with --out DIR."
        ) from error
    finally:
        for path in created:
            with contextlib.suppress(OSError):  # not empty: the report is in it
                path.rmdir()
    return paths
