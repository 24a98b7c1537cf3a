"""Files that are written whole or not at all, and storage errors a person can act on."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pa.errors import StorageError

PARTIAL_SUFFIX = ".partial"
WRITTEN = "PART_AWARE_WRITTEN"  # environment variable: the file that lists what a command wrote
# A host's name may hold hyphens, but no dot: only its first label is used.
_PARTIAL = re.compile(r"(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)-[0-9a-f]{8}\.partial")


def partial_path(path: Path) -> Path:
    """A name beside `path` that no other writer, on this host or another, will choose."""
    unique = f"{this_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f"{path.name}.{unique}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def locked_partial(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Create a partial file or folder for `path` and hold its lock, so that no process removes it.

    What is not renamed when the block ends is removed. The lock is a flock, which processes of all
    containers on one kernel see; a process id means something in its own PID namespace only.
    """
    partial, handle = _create_locked(path, folder)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError, StorageError):
            remove(partial)
        os.close(handle)


def _create_locked(path: Path, folder: bool) -> tuple[Path, int]:
    while True:
        partial = partial_path(path)
        if folder:
            partial.mkdir()
        else:
            partial.touch(exist_ok=False)
        # Between these lines another process may take the partial file for an abandoned one.
        try:
            handle = os.open(partial, os.O_RDONLY if folder else os.O_RDWR)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without flock: `is_abandoned` is False
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), partial.stat()):
                return partial, handle
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path, *, once: bool = False) -> Iterator[Path]:
    """Give a partial path to write to; flush it to disk and rename it to `path` on success.

    With `once`, a file that is already at `path` stays: of several writers the first one wins. A
    reader sees the old file or the new one, never a part of either. Raises `StorageError`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_partial(path) as partial:
            yield partial
            sync(partial)
            _put(partial, path, once)
            sync(path.parent)
    note_written(path)


def note_written(path: Path) -> None:
    """Append the path to the list that the environment names, for the job that runs the command."""
    if listing := os.environ.get(WRITTEN):
        with contextlib.suppress(OSError), open(listing, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps(os.fspath(path.absolute())) + "\n")


def _put(partial: Path, path: Path, once: bool) -> None:
    if not once:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.replace(path)


@dataclass(frozen=True)
class Owner:
    """The writer of a partial file or folder, by its name: the final name and the host."""

    name: str
    host: str

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this host, whose locks this process sees."""
        return self.host == this_host()


def owner(partial: Path) -> Owner | None:
    """Who writes a partial file, or None for a name that `partial_path` did not give."""
    found = _PARTIAL.fullmatch(partial.name)
    return Owner(found["name"], found["host"]) if found else None


def this_host() -> str:
    return socket.gethostname().split(".")[0]


def is_abandoned(partial: Path) -> bool:
    """Whether no process holds the lock of a partial file or folder.

    False where that cannot be known. A symbolic link has no lock: it is made in one step, and
    its writer makes it again.
    """
    with _exclusive(partial) as locked:
        return locked


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder if no other process holds it; False where one does, or
    where the file system has no locks."""
    if path.is_symlink():
        yield True
        return
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def remove_stale(folder: Path, name: str) -> None:
    """Remove what killed processes of this host left of `name`: partial files and folders."""
    for partial in folder.glob(f"{glob.escape(name)}.*{PARTIAL_SUFFIX}"):
        left_by = owner(partial)
        if left_by is not None and left_by.name == name and left_by.is_here:
            with _exclusive(partial) as locked, contextlib.suppress(OSError, StorageError):
                if locked:
                    remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there. Raises `StorageError`."""
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links; a target that
    is there stays."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        with replacing(target) as partial:
            shutil.copyfile(source, partial)


def is_held(lock: Path) -> bool:
    """Whether a process holds the flock of a lock file. A file that was left behind is not held.

    The lock is shared for a moment to see: a writer that wants it just then goes on to its next
    shard and comes back. A file that cannot be opened counts as not held.
    """
    try:
        handle = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(handle)
    return False


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def sync(path: Path) -> None:
    """Force a file or a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, once: bool = False) -> None:
    """Write JSON; with `once`, leave a file alone that another process has put there."""
    text = json.dumps(value, indent=1, sort_keys=False, ensure_ascii=False) + "\n"
    with replacing(path, once=once) as partial:
        partial.write_text(text, encoding="utf-8")


def append_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines to a log.

    A log may lack lines: where the disk is full, they are dropped and the run goes on.
    """
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, text.encode())  # one call, so that lines of processes do not mix
        finally:
            os.close(handle)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's storage errors into `StorageError` with a way out."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:
        cause = _errno(error)
        if cause in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no space left while writing {path}. What was finished before is intact: free "
                f"some space, or move the workspace, and type the same command to go on."
            ) from error
        if cause in (errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG):
            raise StorageError(
                f"cannot write {path} ({os.strerror(cause)}). Choose another name for it, in a "
                f"folder that is there or can be made."
            ) from error
        if cause in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise StorageError(
                f"cannot write {path} ({os.strerror(cause)}). Give write permission, or choose "
                f"another place with --workspace DIR or PA_WORKSPACE."
            ) from error
        raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends.

    HDF5 calls back into Python to write, and an exception raised there, a KeyboardInterrupt too, is
    swallowed by the C code: the program would go on as if nothing had been typed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        try:
            for number, handler in before.items():
                signal.signal(number, handler)
        finally:
            if came:
                signal.raise_signal(came[0])


class HoldingFile(io.FileIO):
    """A file for HDF5 to write to, which holds back a storage error instead of passing it on.

    HDF5 1.14 crashes the process (segmentation fault) when it closes a file on a full disk. So it
    is told that all is well, and `check` raises the error in Python, where nothing is lost.
    """

    def __init__(self, path: Path) -> None:
        self._fault: OSError | None = None
        super().__init__(path, "w+")

    def write(self, data: Any) -> int:
        """Write all of `data`; after the first error, drop it."""
        view = memoryview(data).cast("B")
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
        """Raise the error that was held back, if there was one."""
        if self._fault is not None:
            raise self._fault


def _errno(error: BaseException) -> int | None:
    """The errno of an OSError, or of what HDF5 says in words."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error).lower()
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(number).lower() in text or f"errno = {number}," in text:
            return number
    return None
