"""Atomic files, locks of their writers, and storage errors with a remedy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import io
import json
import os
import re
import shutil
import signal
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pa.errors import StorageError

if TYPE_CHECKING:
    import polars as pl

PARTIAL_SUFFIX = ".partial"  # of a file or folder in work
WRITTEN = "PART_AWARE_WRITTEN"  # environment variable: file that lists what a command wrote
# A host name may hold hyphens, but no dot: only its first label is used.
_PARTIAL = re.compile(r"(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)-[0-9a-f]{8}\.partial")


def partial_path(path: Path) -> Path:
    """Return a name next to `path` that no other writer, on any host, will choose."""
    unique = f"{this_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"  # as `_PARTIAL` reads it
    return path.with_name(f"{path.name}.{unique}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def locked_partial(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Create a partial file or folder for `path` and lock it, so that no process removes it.

    It is removed when the block ends, unless it was renamed.
    """
    while True:  # before it is locked, another process may remove it as abandoned: then again
        partial = partial_path(path)
        if folder:
            partial.mkdir()
        else:
            partial.touch(exist_ok=False)
        try:
            handle = os.open(partial, os.O_RDONLY if folder else os.O_RDWR)
        except FileNotFoundError:
            continue
        # Processes of all containers on one kernel see a flock; their process ids differ.
        with contextlib.suppress(OSError):  # a file system without flock: `is_abandoned` is False
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), partial.stat()):
                break
        os.close(handle)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError, StorageError):
            remove(partial)
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path, *, once: bool = False) -> Iterator[Path]:
    """Yield a partial path to write to; flush it to disk and rename it to `path` on success.

    A reader sees the old file or the new one, never a part of either. With `once`, an existing
    file stays: of several writers the first one wins. Raise `StorageError`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_partial(path) as partial:
            yield partial
            sync(partial)
            if not once:
                partial.replace(path)
            else:
                try:
                    os.link(partial, path)
                except FileExistsError:
                    pass
                except OSError:  # a file system without hard links
                    if not path.exists():
                        partial.replace(path)
            sync(path.parent)  # makes the rename durable
    note_written(path)


def note_written(path: Path) -> None:
    """Append a path to the list of written files, if the environment names one (see `WRITTEN`)."""
    if listing := os.environ.get(WRITTEN):
        with contextlib.suppress(OSError), open(listing, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps(os.fspath(path.absolute())) + "\n")


class Owner(NamedTuple):
    """The writer of a partial file or folder, read from its name: final name and host."""

    name: str
    host: str

    @property
    def is_here(self) -> bool:
        """Whether it runs or ran on this host, whose locks this process sees."""
        return self.host == this_host()


def owner(partial: Path) -> Owner | None:
    """Return the writer of a partial file; None for a name that is not of `partial_path`."""
    match = _PARTIAL.fullmatch(partial.name)
    return Owner(match["name"], match["host"]) if match else None


def this_host() -> str:
    return socket.gethostname().split(".")[0]


def is_abandoned(partial: Path) -> bool:
    """Return whether no process holds the lock of a partial file or folder.

    False if this cannot be determined.
    """
    with _exclusive(partial) as locked:
        return locked


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Lock a file or folder; yield False if another process holds the lock, or without locks."""
    # A symbolic link has no lock: it is created in one step, and its writer creates it again.
    if path.is_symlink():
        yield True
        return
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if the lock is held
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def remove_stale(folder: Path, name: str | None = None) -> None:
    """Remove partial files that killed processes of this host left, of all names or of one."""
    pattern = "*" if name is None else f"{glob.escape(name)}.*"
    for partial in folder.glob(f"{pattern}{PARTIAL_SUFFIX}"):
        writer = owner(partial)
        if writer is not None and writer.name == (name or writer.name) and writer.is_here:
            with _exclusive(partial) as locked, contextlib.suppress(OSError, StorageError):
                if locked:
                    remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists. Raise `StorageError`."""
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it on a file system without hard links; an existing target stays."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        with replacing(target) as partial:
            shutil.copyfile(source, partial)


def is_held(lock: Path) -> bool:
    """Return whether a process holds the flock of a lock file; False if it cannot be opened."""
    # The test takes a shared lock for a moment: a writer that requests the lock meanwhile
    # continues with its next shard and comes back.
    with contextlib.suppress(OSError), _opened(lock, os.O_RDONLY) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)
    return False


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def sync(path: Path) -> None:
    """Force a file or a directory to disk."""
    with _opened(path, os.O_RDONLY) as handle:
        os.fsync(handle)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, once: bool = False) -> None:
    with replacing(path, once=once) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, once: bool = False) -> None:
    """Write JSON; with `once`, an existing file of another process stays."""
    text = json.dumps(value, indent=1, sort_keys=False, ensure_ascii=False) + "\n"
    write_text(path, text, once=once)


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table. Raise `StorageError` without space or permission."""
    # In memory first: polars reports a full disk by errors of its own.
    data = parquet_bytes(table)
    with replacing(path) as partial:
        partial.write_bytes(data)


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    return data.getvalue()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a log; a line that a crash tore is skipped."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(entry := json.loads(line), dict):
                yield entry


def append_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines to a log.

    A log may lack lines: if the disk is full, they are dropped and the run continues.
    """
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with contextlib.suppress(OSError), _opened(path, flags) as handle:
        # One call, so that the lines of several processes do not mix.
        os.write(handle, text.encode())


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn storage errors of the operating system into `StorageError` with a remedy."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:
        cause = error.errno if isinstance(error, OSError) else None
        if not cause:  # HDF5 raises errors without an errno
            words = str(error).lower()
            known = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
            names = {n: (os.strerror(n).lower(), f"errno = {n},") for n in known}
            cause = next((n for n in known if any(name in words for name in names[n])), None)
        if cause in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no space left while writing {path}. Files finished before are intact: free "
                f"some space, or move the workspace, and run the same command to resume."
            ) from error
        if cause in (errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG):
            remedy = "Choose another name, in a folder that exists or can be created."
        elif cause in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            remedy = (
                "Give write permission, or choose another folder with --workspace DIR or "
                "PA_WORKSPACE."
            )
        else:
            raise
        raise StorageError(f"cannot write {path} ({os.strerror(cause)}). {remedy}") from error


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends."""
    # HDF5 calls back into Python to write, and its C code drops an exception raised there, also a
    # KeyboardInterrupt: the program would continue as if it had not been interrupted.
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, lambda number, frame: received.append(number))
        yield
    finally:
        try:
            for number, handler in before.items():
                signal.signal(number, handler)
        finally:
            if received:
                signal.raise_signal(received[0])  # now that the handlers are back


class HoldingFile(io.FileIO):
    """A file for HDF5 to write to, which keeps a storage error instead of raising it.

    HDF5 1.14 crashes the process (segmentation fault) when it closes a file on a full disk. It
    therefore sees every write succeed, and `check` raises the error afterwards.
    """

    def __init__(self, path: Path) -> None:
        self._fault: OSError | None = None
        super().__init__(path, "w+")

    def write(self, data: Any) -> int:
        """Write all of `data`; after the first error, drop it."""
        view = memoryview(data).cast("B")  # HDF5 passes memory of any format
        done = 0
        while done < len(view) and self._fault is None:
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self._fault = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._fault = self._fault or error
            return size or 0

    def check(self) -> None:
        """Raise the first error of a write, if one occurred."""
        if self._fault is not None:
            raise self._fault
