"""The image files behind a store: what each one held when it was read, and whether it still does.

Every shard keeps the xxh3-128 of its images' files. To compare them, a file has to be read; so
`images.jsonl` of a store records which files are known to hold what a shard says. It is a cache: a
line that is missing, torn or of another root costs one more reading of those files.

Shapes: M images of a store or a shard.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from pa.data.files import append_lines
from pa.data.store.reader import IMAGES, Store
from pa.data.store.shards import ShardPlan
from pa.errors import FingerprintError

THREADS = 16  # hides the latency of a network disk
PIECE = 512  # files per task of a thread
STATUS = 4  # size, time of the content, time of the entry, inode
GONE = (-1, 0, 0, 0)
# A file that changes twice within a tick of its file system's clock has one time for both: what
# changed less than this long ago is read again at the next comparison.
YOUNG_NS = 2_000_000_000
SHOWN = 5  # changed images that a message names

Status = tuple[int, int, int, int]


class NotAFileError(OSError):
    """A path that leads to a pipe, a folder or a device."""


@dataclass(frozen=True)
class FileContent:
    """The bytes of a file, their xxh3-128, and the state of the file before it was read."""

    data: bytes
    xxh3: bytes
    status: Status


def read(path: Path) -> FileContent:
    """Read a file whole. Raises `OSError`; `NotAFileError` for a pipe, which would never end."""
    with open(path, "rb", buffering=0, opener=_open) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise NotAFileError("not a regular file")
        data = file.readall()
    return FileContent(data, xxhash.xxh3_128_digest(data), _status(found))


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would block


@dataclass(frozen=True)
class ChangedImage:
    """An image whose file does not hold what a shard was made from; `found` is None for one that
    cannot be read."""

    image: int
    path: str
    shard: ShardPlan
    expected: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found or 'no readable file'}"

    def to_json(self) -> dict[str, str | int | None]:
        return {
            "image": self.image,
            "path": self.path,
            "shard": self.shard.name,
            "expected": self.expected,
            "found": self.found,
        }


class ImageFiles:
    """The image files of a store under a root; without `keep` the cache is read, not written."""

    def __init__(self, store: Store, root: Path, *, keep: bool = True) -> None:
        self.store = store
        self._keep = keep
        self.root = root.absolute()
        images = store.rows["image"].to_numpy()
        first_rows = np.append(0, np.flatnonzero(np.diff(images)) + 1) if len(images) else images
        self._first_rows = first_rows
        self._numbers = images[first_rows]
        self._paths: list[str] = store.rows["path"].gather(first_rows).to_list()

    def changed(
        self,
        shards: Sequence[ShardPlan] | None = None,
        *,
        full: bool = False,
        hasher: Callable[[Path], bytes | None] | None = None,
    ) -> list[ChangedImage]:
        """Compare the files with what the shards say: those given, by default all that are there.

        A file in the state in which it was read is taken as unchanged; others are read. Files that
        are not there, or cannot be read, are left out. With `full` every file is read, and those
        that cannot be read are listed. `hasher` gives the hash of a file, by default `hash_of`.
        """
        hasher = hasher or hash_of
        if shards is None:
            missing = set(self.store.missing())
            shards = [shard for shard in self.store.plan if shard not in missing]
        places = {shard: self.place(shard) for shard in shards}
        status = self.status(list(places.values()))
        changed: list[ChangedImage] = []
        with ThreadPoolExecutor(THREADS, thread_name_prefix="pa-images") as pool:
            for shard, place in places.items():
                state = self.state(place, status[place])
                checksum = self.store.image_checksum(shard)
                if not full and (state, checksum) in self._known:
                    continue
                paths = [self.root / path for path in self._paths[place]]
                found = list(pool.map(hasher, paths))
                differing = list(self._compare(shard, place, found, full=full))
                changed += differing
                if not differing:
                    self.record(state, checksum, status[place])
        return changed

    def status(self, places: Sequence[slice] = (slice(None),)) -> npt.NDArray[np.int64]:
        """The states of the files (M, 4); with `places`, of those alone, others undefined."""
        wanted = [n for place in places for n in range(*place.indices(len(self._paths)))]
        status = np.empty((len(self._paths), STATUS), dtype=np.int64)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="pa-images") as pool:
            pieces = [wanted[start : start + PIECE] for start in range(0, len(wanted), PIECE)]
            for piece, found in zip(pieces, pool.map(self._look, pieces), strict=True):
                status[piece] = found
        return status

    def check(self, shards: Sequence[ShardPlan] | None = None) -> None:
        """Raise `FingerprintError` where files changed since shards were made from them."""
        if changed := self.changed(shards):
            raise FingerprintError(describe(self.store, self.root, changed))

    def written(self, shard: ShardPlan, status: npt.NDArray[np.int64]) -> None:
        """Record the state (M, 4) of the files from which a shard has just been made."""
        state = self.state(self.place(shard), status)
        self.record(state, self.store.image_checksum(shard), status)

    def state(self, place: slice, status: npt.NDArray[np.int64]) -> str:
        """Digest of the root, the paths, and the state of files (M, 4)."""
        digest = xxhash.xxh3_128("\0".join([str(self.root), *self._paths[place]]).encode())
        digest.update(np.ascontiguousarray(status, dtype="<i8").data)
        return digest.hexdigest()

    def record(self, state: str, checksum: str, status: npt.NDArray[np.int64]) -> None:
        """Add a line to the cache, unless a file changed too recently to rely on its times."""
        young = len(status) and int(status[:, 1:3].max()) > time.time_ns() - YOUNG_NS
        self._add([] if young else [(state, checksum)])

    def learn(self, other: ImageFiles) -> None:
        """Add what another store's cache knows, after shards of it were taken over."""
        self._add(sorted(other._known - self._known))

    def _add(self, lines: Sequence[tuple[str, str]]) -> None:
        self._known.update(lines)
        if not self._keep:
            return
        append_lines(self.store.path / IMAGES, [{"files": f, "images": i} for f, i in lines])

    @cached_property
    def _known(self) -> set[tuple[str, str]]:
        """The lines of the cache; those that a crash tore are left out."""
        found = set()
        try:
            lines = (self.store.path / IMAGES).read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                fields = json.loads(line)
                found.add((str(fields["files"]), str(fields["images"])))
            except (ValueError, LookupError, TypeError):
                continue
        return found

    def place(self, shard: ShardPlan) -> slice:
        """The images of a shard, as places in the store's list of images."""
        first, last = np.searchsorted(self._first_rows, [shard.start, shard.stop])
        return slice(int(first), int(last))

    def _look(self, places: Iterable[int]) -> list[Status]:
        return [_look(f"{self.root}/{self._paths[place]}") for place in places]

    def _compare(
        self, shard: ShardPlan, place: slice, found: Sequence[bytes | None], *, full: bool
    ) -> Iterator[ChangedImage]:
        paths = self._paths[place]
        hashes = self.store.image_hashes(shard)
        for number, path, expected, actual in zip(
            self._numbers[place].tolist(), paths, hashes, found, strict=True
        ):
            if actual == expected.tobytes() or (actual is None and not (full and expected.any())):
                continue
            was = expected.tobytes().hex() if expected.any() else "a file that cannot be read"
            yield ChangedImage(number, path, shard, was, actual.hex() if actual else None)


def hashes_of(store: Store, rows: npt.NDArray[np.int64]) -> list[bytes]:
    """The stored hash of the image file of each row; zero for one that could not be read."""
    images = store.rows["image"].to_numpy()
    found = [b""] * len(rows)
    shards = np.searchsorted(store.starts, rows, side="right") - 1
    for number in np.unique(shards).tolist():
        shard = store.plan[number]
        of_shard = np.unique(images[shard.start : shard.stop])
        hashes = store.image_hashes(shard)
        for place in np.flatnonzero(shards == number).tolist():
            found[place] = hashes[np.searchsorted(of_shard, images[rows[place]])].tobytes()
    return found


def check_content(store: Store, row: int, data: bytes, file: Path) -> None:
    """Raise `FingerprintError` where the bytes of an image are not those that a row was made from.

    Images whose file could not be read have no hash and pass.
    """
    (expected,) = hashes_of(store, np.array([row]))
    found = xxhash.xxh3_128_digest(data)
    if any(expected) and found != expected:
        raise FingerprintError(
            f"the image {file} is not the one that {store.title} was made from: expected xxh3-128 "
            f"{expected.hex()}, found {found.hex()}. Put the former file back, or encode the "
            f"images that changed with:\n  {store.command} --replace"
        )


def hash_of(path: Path) -> bytes | None:
    """The xxh3-128 of a file; None for one that cannot be read."""
    try:
        return read(path).xxh3
    except OSError:
        return None


def status_array(status: Sequence[Status | None]) -> npt.NDArray[np.int64]:
    """States of files as an array (M, 4); None stands for a file that could not be read."""
    return np.array([one or GONE for one in status], dtype=np.int64).reshape(-1, STATUS)


def describe(store: Store, root: Path, changed: Sequence[ChangedImage]) -> str:
    """The message about images that changed: the first of them, and what to do."""
    lines = [f"  {image}" for image in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"  … and {len(changed) - SHOWN} more")
    shards = len({image.shard for image in changed})
    return (
        f"{len(changed)} of {store.spec.rows['n_images']} images under {root} are not those that "
        f"{store.title} was made from. Names and sizes are equal; the xxh3-128 of the files is "
        f"not:\n" + "\n".join(lines) + "\n"
        f"Put the former files back, or choose: --replace encodes {shards} of {len(store.plan)} "
        f"shards again and keeps the others; to keep both, give these images another name under "
        f"[datasets] in pa.toml, or another --workspace. --alongside cannot separate them: names "
        f"and sizes, which the fingerprint covers, are equal."
    )


def _status(found: os.stat_result) -> Status:
    # Times beyond the year 2262 and some inode numbers need all 64 bits, unsigned.
    size, *others = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    modified, changed, inode = ((value + 2**63) % 2**64 - 2**63 for value in others)
    return size, modified, changed, inode


def _look(path: str) -> Status:
    try:
        return _status(os.stat(path))  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return GONE
