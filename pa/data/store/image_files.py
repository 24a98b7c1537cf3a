"""The image files of a store: their hashes at extraction, and whether they changed since.

Every shard records the xxh3-128 of its image files. Comparing them means reading every file, so
`images.jsonl` of a store records which states of files (size, times, inode) are known to match. It
is a cache: a line that is missing, torn or of another root costs one more reading of those files.

Shapes: M images of a store or a shard.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from pa.data.files import append_lines, read_lines
from pa.data.store.reader import IMAGES, Store
from pa.data.store.shards import ShardPlan
from pa.errors import FingerprintError

THREADS = 16  # hides the latency of a network disk
FILES_PER_TASK = 512  # large enough that the overhead of a task does not matter
STATUS = 4  # size, time of the content, time of the entry, inode
GONE = (-1, 0, 0, 0)  # status of a file that cannot be read
# A file that changes twice within a tick of its file system's clock keeps its time: what changed
# less than this long ago is read again at the next comparison.
YOUNG_NS = 2_000_000_000  # 2 s: the coarsest clock, of FAT
SHOWN = 5  # changed images that a message names

Status = tuple[int, int, int, int]


class NotAFileError(OSError):
    """A path that leads to a pipe, a folder or a device."""


@dataclass(frozen=True)
class FileContent:
    """The bytes of a file, their xxh3-128, and the status of the file before it was read."""

    data: bytes
    xxh3: bytes
    status: Status


def read(path: Path) -> FileContent:
    """Read a whole file. Raise `OSError`; `NotAFileError` for a pipe, which would never end."""
    # A pipe without a writer would block.
    with open(
        path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
    ) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError("not a regular file")
        data = file.readall()
    return FileContent(data, xxhash.xxh3_128_digest(data), _status(status))


def hash_of(path: Path) -> bytes | None:
    """Return the xxh3-128 of a file; None if it cannot be read."""
    try:
        return read(path).xxh3
    except OSError:
        return None


@dataclass(frozen=True)
class ChangedImage:
    """An image whose file differs from the one its shard was made from."""

    image: int
    path: str
    shard: ShardPlan
    expected: str
    actual: str | None  # None for a file that cannot be read

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.actual or 'no readable file'}"

    def to_json(self) -> dict[str, str | int | None]:
        names = {"shard": self.shard.name, "expected": self.expected, "found": self.actual}
        return {"image": self.image, "path": self.path, **names}


class ImageFiles:
    """The image files of a store under a root; with `read_only` the cache is not written."""

    def __init__(self, store: Store, root: Path, *, read_only: bool = False) -> None:
        self.store = store
        self.root = root.absolute()
        self._read_only = read_only
        images = store.rows["image"].to_numpy()  # (N,)
        first_rows = np.append(0, np.flatnonzero(np.diff(images)) + 1) if len(images) else images
        self._first_rows = first_rows  # (M,)
        self._numbers = images[first_rows]  # (M,)
        self._paths: list[str] = store.rows["path"].gather(first_rows).to_list()

    def changed(
        self,
        shards: Sequence[ShardPlan] | None = None,
        *,
        full: bool = False,
        hasher: Callable[[Path], bytes | None] = hash_of,
    ) -> list[ChangedImage]:
        """Compare the files with the hashes in the shards; by default with all finished shards.

        A file whose status is known to match is not read again. Files that do not exist or cannot
        be read are ignored. With `full` every file is read, and those that cannot be read are
        listed. `hasher` returns the hash of a file.
        """
        if shards is None:
            missing = set(self.store.missing())
            shards = [shard for shard in self.store.plan if shard not in missing]
        slices = {shard: self.images_of(shard) for shard in shards}
        # All at once: asking for the status of many files in threads hides the latency of a disk.
        status = self.status(list(slices.values()))
        changed: list[ChangedImage] = []
        with ThreadPoolExecutor(THREADS, thread_name_prefix="pa-images") as pool:
            for shard, images in slices.items():
                state = self._state(images, status[images])
                checksum = self.store.image_checksum(shard)
                if not full and (state, checksum) in self._known:
                    continue
                paths = self._paths[images]
                hashes = pool.map(hasher, [self.root / path for path in paths])
                numbers, recorded = self._numbers[images].tolist(), self.store.image_hashes(shard)
                n_changed = len(changed)
                for number, path, row, actual in zip(numbers, paths, recorded, hashes, strict=True):
                    expected = row.tobytes()
                    if actual == expected or (actual is None and not (full and any(expected))):
                        continue
                    was = expected.hex() if any(expected) else "a file that cannot be read"
                    is_now = actual.hex() if actual else None
                    changed.append(ChangedImage(number, path, shard, was, is_now))
                if len(changed) == n_changed:
                    self._record(state, checksum, status[images])
        return changed

    def status(self, slices: Sequence[slice] = (slice(None),)) -> npt.NDArray[np.int64]:
        """Return the status of each file (M, 4); with `slices`, only theirs is defined."""
        wanted = [n for images in slices for n in range(*images.indices(len(self._paths)))]
        status = np.empty((len(self._paths), STATUS), dtype=np.int64)  # (M, 4)

        def look(number: int) -> Status:
            try:
                # A Path costs more than the call.
                return _status(os.stat(f"{self.root}/{self._paths[number]}"))  # noqa: PTH116
            except OSError:
                return GONE

        with ThreadPoolExecutor(THREADS, thread_name_prefix="pa-images") as pool:
            starts = range(0, len(wanted), FILES_PER_TASK)
            tasks = [wanted[start : start + FILES_PER_TASK] for start in starts]
            results = pool.map(lambda task: [*map(look, task)], tasks)
            for task, result in zip(tasks, results, strict=True):
                status[task] = result
        return status

    def check(self, shards: Sequence[ShardPlan] | None = None) -> None:
        """Raise `FingerprintError` if files changed since shards were made from them."""
        if changed := self.changed(shards):
            raise FingerprintError(describe_changed(self.store, self.root, changed))

    def written(self, shard: ShardPlan, status: npt.NDArray[np.int64]) -> None:
        """Record the status (M, 4) of the files from which a shard has just been encoded."""
        state = self._state(self.images_of(shard), status)
        self._record(state, self.store.image_checksum(shard), status)

    def _state(self, images: slice, status: npt.NDArray[np.int64]) -> str:
        """Return a digest of the root, the paths, and the status of files (M, 4)."""
        digest = xxhash.xxh3_128("\0".join([str(self.root), *self._paths[images]]).encode())
        digest.update(np.ascontiguousarray(status, dtype="<i8").data)
        return digest.hexdigest()

    def _record(self, state: str, checksum: str, status: npt.NDArray[np.int64]) -> None:
        # A file that changed too recently may change again without another time.
        young = len(status) and int(status[:, 1:3].max()) > time.time_ns() - YOUNG_NS
        self._add([] if young else [(state, checksum)])

    def merge(self, other: ImageFiles) -> None:
        """Add the cache of another store, after shards of it were adopted."""
        self._add(sorted(other._known - self._known))

    def _add(self, lines: Sequence[tuple[str, str]]) -> None:
        self._known.update(lines)
        if not self._read_only:
            append_lines(self.store.path / IMAGES, [{"files": f, "images": i} for f, i in lines])

    @cached_property
    def _known(self) -> set[tuple[str, str]]:
        lines = read_lines(self.store.path / IMAGES)
        return {(str(line.get("files")), str(line.get("images"))) for line in lines}

    def images_of(self, shard: ShardPlan) -> slice:
        """Return the images of a shard as a slice of the store's list of images."""
        first, last = np.searchsorted(self._first_rows, [shard.start, shard.stop])
        return slice(int(first), int(last))


def hashes_of(store: Store, rows: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the recorded hash of the image file of each row; zero for an unreadable file."""
    images = store.rows["image"].to_numpy()  # (N,)
    result = [b""] * len(rows)
    shards = np.searchsorted(store.starts, rows, side="right") - 1  # (n,) shard of each row
    for number in np.unique(shards).tolist():
        shard = store.plan[number]
        of_shard = np.unique(images[shard.start : shard.stop])  # (M,) ascending
        hashes = store.image_hashes(shard)  # (M, 16)
        for i in np.flatnonzero(shards == number).tolist():
            result[i] = hashes[np.searchsorted(of_shard, images[rows[i]])].tobytes()
    return result


def check_content(store: Store, row: int, data: bytes, file: Path) -> None:
    """Raise `FingerprintError` if the bytes of an image are not those that a row was made from.

    Images whose file could not be read have no hash and pass.
    """
    (expected,) = hashes_of(store, np.array([row]))
    actual = xxhash.xxh3_128_digest(data)
    if any(expected) and actual != expected:
        raise FingerprintError(
            f"the image {file} is not the one that {store.title} was made from: expected xxh3-128 "
            f"{expected.hex()}, found {actual.hex()}. Restore the former file, or encode the "
            f"images that changed with:\n  {store.command} --replace"
        )


def status_array(status: Sequence[Status | None]) -> npt.NDArray[np.int64]:
    """Return the status of files as an array (M, 4); None stands for an unreadable file."""
    return np.array([entry or GONE for entry in status], dtype=np.int64).reshape(-1, STATUS)


def describe_changed(store: Store, root: Path, changed: Sequence[ChangedImage]) -> str:
    """Return the message about images that changed: the first of them, and what to do."""
    lines = [f"  {image}" for image in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"  … and {len(changed) - SHOWN} more")
    shards = len({image.shard for image in changed})
    return (
        f"{len(changed)} of {store.spec.rows['n_images']} images under {root} are not those that "
        f"{store.title} was made from. Names and sizes are equal; the xxh3-128 of the files is "
        f"not:\n" + "\n".join(lines) + "\n"
        f"Restore the former files, or choose: --replace encodes {shards} of {len(store.plan)} "
        f"shards again and keeps the others; to keep both, give these images another name under "
        f"[datasets] in pa.toml, or another --workspace. --alongside cannot separate them: names "
        f"and sizes, which the fingerprint covers, are equal."
    )


def _status(result: os.stat_result) -> Status:
    # Times beyond the year 2262 and some inode numbers need all 64 bits, unsigned.
    size, *others = result.st_size, result.st_mtime_ns, result.st_ctime_ns, result.st_ino
    modified, changed, inode = ((value + 2**63) % 2**64 - 2**63 for value in others)
    return size, modified, changed, inode
