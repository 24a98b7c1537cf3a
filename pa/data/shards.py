"""One shard: an HDF5 file with the features of a block of consecutive rows.

A shard is written under a partial name, flushed, checksummed, synced and renamed, so a file with
the final name is complete. See docs/formats.md.

Shapes: n rows of the shard, D width, L patch tokens.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import xxhash

from pa.data import scatter
from pa.data.files import HoldingFile, replacing, uninterrupted
from pa.errors import (
    NewerFormatError,
    PaError,
    StorageError,
    UsageError,
    VerificationError,
    is_newer,
)

SHARD_FORMAT = 1
SCATTERED_ROWS = 32  # from so many token maps on, listing where they lie is worth while

# HDF5 has no bfloat16: its bits are kept as uint16, and the spec says which it is. int8 keeps every
# vector as its bytes and, behind them, the four of its scale: one piece to read, as all others.
DISK_DTYPES: dict[str, np.dtype[Any]] = {
    "fp16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "fp32": np.dtype("<f4"),
    "int8": np.dtype("u1"),
}
LARGEST_FLOAT = 3.4028234663852886e38
LARGEST = {
    "fp16": 65504.0,
    "bf16": 3.3895313892515355e38,
    "fp32": LARGEST_FLOAT,
    "int8": LARGEST_FLOAT,
}
INT8_LARGEST = 127
SCALE_BYTES = 4  # float32, little-endian


def disk_shape(shape: Sequence[int], storage: str) -> tuple[int, ...]:
    """The shape on disk of a row's array of this shape: int8 has its scale behind each vector."""
    if storage != "int8":
        return tuple(shape)
    return (*shape[:-1], shape[-1] + SCALE_BYTES)


def to_disk(values: npt.NDArray[np.float32], storage: str) -> npt.NDArray[Any]:
    """Convert float32 (…, D) to what lies on disk; bf16 rounds to nearest even.

    int8: scale = largest magnitude of the vector / 127, and the nearest multiple of it, halves to
    even; an error of at most half a scale in each value. Returns (…, D + 4) bytes.
    """
    if storage == "int8":
        return _to_int8(values)
    if storage != "bf16":
        return values.astype(DISK_DTYPES[storage])
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return rounded.astype(np.uint16)


def from_disk(values: npt.NDArray[Any], storage: str) -> npt.NDArray[Any]:
    """Give fp16 and fp32 as they are; bf16 widened, and int8 multiplied by its scales, to
    float32 (…, D)."""
    if storage == "int8":
        scales = np.ascontiguousarray(values[..., -SCALE_BYTES:]).view("<f4")
        floats: npt.NDArray[np.float32] = values[..., :-SCALE_BYTES].view(np.int8) * scales
        return floats
    if storage != "bf16":
        return values
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_int8(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scales = (largest / np.float32(INT8_LARGEST)).astype("<f4")
    steps = np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)
    # A subnormal scale has few bits of its own: its quotient may pass 127.
    steps = np.rint(steps).clip(-INT8_LARGEST, INT8_LARGEST).astype(np.int8)
    return np.concatenate([steps.view(np.uint8), scales.view(np.uint8)], axis=-1)


@dataclass(frozen=True)
class ShardPlan:
    """Rows `start` to `stop` of the store, and the file that holds them."""

    index: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        return f"shard-{self.index:05d}.h5"


def plan(image_of_row: npt.NDArray[np.int64], shard_rows: int) -> list[ShardPlan]:
    """Cut rows into shards of about `shard_rows`, never inside an image.

    Greedy from the front, so the shards of the first N images do not depend on how many follow.
    """
    n_rows = len(image_of_row)
    if n_rows == 0:
        return []
    image_ends = np.append(np.flatnonzero(np.diff(image_of_row)) + 1, n_rows)
    cuts, start, end = [0], 0, 0
    for image_end in map(int, image_ends):
        if image_end - start > shard_rows and end > start:
            cuts.append(end)
            start = end
        end = image_end
    cuts.append(n_rows)
    return _between(cuts)


def plan_of_sizes(sizes: Sequence[int]) -> list[ShardPlan]:
    """Shards of these many rows, one after the other."""
    return _between([0, *itertools.accumulate(sizes)])


def _between(cuts: Sequence[int]) -> list[ShardPlan]:
    return [ShardPlan(i, a, b) for i, (a, b) in enumerate(itertools.pairwise(cuts))]


@dataclass(frozen=True)
class BadImage:
    """An image that could not be decoded: its number, path, rows [first, last] and the reason."""

    image: int
    path: str
    first_row: int
    last_row: int
    reason: str


class ShardWriter:
    """Writes the rows of one shard in order. Made by `writing`."""

    def __init__(
        self,
        file: h5py.File,
        disk: HoldingFile,
        shard: ShardPlan,
        shapes: Mapping[str, list[int]],
        storage: str,
    ) -> None:
        self._file = file
        self._disk = disk
        self._shard = shard
        self._storage = storage
        self._filled = 0
        self._bad: list[BadImage] = []
        self._valid = np.ones(shard.n_rows, dtype=np.uint8)
        self._hashes = {name: xxhash.xxh3_128() for name in shapes}
        for name, shape in shapes.items():
            self._create(name, disk_shape(shape, storage))

    def _create(self, name: str, shape: tuple[int, ...]) -> None:
        # A vector per row lies contiguous: sequential reads run at file speed and a row is one
        # seek. Token maps are chunked by region: the attentive probe reads regions at random.
        chunks = (1, *shape) if len(shape) > 1 else None
        self._file.create_dataset(
            name, (self._shard.n_rows, *shape), DISK_DTYPES[self._storage], chunks=chunks
        )

    def append(
        self, features: Mapping[str, npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Write the next rows: arrays (n, …) per representation, and which rows have an image.

        Raises `UsageError` where a feature is not finite or does not fit the storage type.
        """
        for name, values in features.items():
            self._check(name, values)
        stored = {name: to_disk(values, self._storage) for name, values in features.items()}
        self.append_stored(stored, valid)

    def append_stored(
        self, arrays: Mapping[str, npt.NDArray[Any]], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Write the next rows as another store of the same precision holds them: arrays (n, …) of
        the shape and type on disk, per representation. Nothing is rounded again."""
        n = len(valid)
        block = slice(self._filled, self._filled + n)
        for name, data in arrays.items():
            with uninterrupted():
                self._file[name][block] = data
            self._hashes[name].update(np.ascontiguousarray(data).data)
        self._disk.check()
        self._valid[block] = valid
        self._filled += n

    def _check(self, name: str, values: npt.NDArray[np.float32]) -> None:
        largest = float(np.abs(values).max(initial=0.0))
        if largest <= LARGEST[self._storage]:
            return
        rows = np.flatnonzero(
            ~(np.abs(values).reshape(len(values), -1).max(1) <= LARGEST[self._storage])
        )
        first = self._shard.start + self._filled + int(rows[0])
        if np.isfinite(largest):
            raise UsageError(
                f"{name} of row {first} reaches {largest:.4g}, more than {self._storage} can hold "
                f"({LARGEST[self._storage]:.4g}). Store with --storage bf16 or --storage fp32."
            )
        raise UsageError(
            f"{name} of row {first} holds NaN or infinity ({len(rows)} rows of this batch do). "
            f"Encode with --dtype fp32; if it stays, the checkpoint itself is damaged."
        )

    def record_bad(self, bad: BadImage) -> None:
        self._bad.append(bad)

    def finish(self, key: str) -> None:
        """Seal the shard: validity, checksums, and the key of what made it."""
        if self._filled != self._shard.n_rows:
            raise StorageError(
                f"{self._shard.name}: {self._filled} of {self._shard.n_rows} rows were written"
            )
        self._file.create_dataset("valid", data=self._valid)
        checksums = {name: state.hexdigest() for name, state in self._hashes.items()}
        checksums["valid"] = xxhash.xxh3_128(self._valid.data).hexdigest()
        self._file.attrs.update(
            format=SHARD_FORMAT,
            first_row=self._shard.start,
            n_rows=self._shard.n_rows,
            key=key,
            checksums=json.dumps(checksums),
            bad=json.dumps([vars(bad) for bad in self._bad], ensure_ascii=False),
        )


@contextlib.contextmanager
def writing(
    directory: Path, shard: ShardPlan, shapes: Mapping[str, list[int]], storage: str, key: str
) -> Iterator[ShardWriter]:
    """Write one shard. It gets its final name when the block ends without an error."""
    path = directory / shard.name
    with replacing(path) as partial, HoldingFile(partial) as disk:
        with uninterrupted():
            file = h5py.File(disk, "w")
            writer = ShardWriter(file, disk, shard, shapes, storage)
        try:
            yield writer
            with uninterrupted():
                writer.finish(key)
        finally:
            with uninterrupted():
                file.close()
        disk.check()


@dataclass(frozen=True)
class ShardInfo:
    """What a finished shard says of itself."""

    first_row: int
    n_rows: int
    key: str
    checksums: dict[str, str]
    bad: list[BadImage]
    bytes: int


def read_info(path: Path) -> ShardInfo:
    """Read a shard's attributes.

    Raises `VerificationError` where the file is not a whole shard, `NewerFormatError` where a newer
    version wrote it.
    """
    with open_shard(path) as file:
        try:
            found = int(file.attrs["format"])
            if is_newer(found, SHARD_FORMAT):
                raise NewerFormatError(path, "shard", found, SHARD_FORMAT)
            if found != SHARD_FORMAT:
                raise ValueError(f"format {found}, this version reads {SHARD_FORMAT}")
            return ShardInfo(
                first_row=int(file.attrs["first_row"]),
                n_rows=int(file.attrs["n_rows"]),
                key=str(file.attrs["key"]),
                checksums=json.loads(file.attrs["checksums"]),
                bad=[BadImage(**fields) for fields in json.loads(file.attrs["bad"])],
                bytes=path.stat().st_size,
            )
        except NewerFormatError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise damaged(path, f"attribute missing or unreadable: {error}") from error


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[h5py.File]:
    """Open read-only and without a file lock: locks fail on some network file systems.

    Raises `VerificationError` for a file that is not there or that HDF5 cannot read.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = "it is not there" if not path.exists() else str(error).splitlines()[0]
        raise damaged(path, reason) from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError) as error:
            if isinstance(error, PaError):
                raise
            raise damaged(path, str(error).splitlines()[0]) from error


def damaged(path: Path, reason: str) -> VerificationError:
    """The error for a shard that is not what was written, with the way out."""
    return VerificationError(
        f"{path} is not a readable shard ({reason}). Delete it, if it is there, and type the "
        f"`pa extract` command that made the store: it makes the shard again. `pa verify` checks "
        f"the others."
    )


def read_rows(
    data: h5py.Dataset,
    rows: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    places: npt.NDArray[np.int64],
) -> None:
    """Read rows of a shard's array, by their numbers in the shard, to `places` of `out`.

    HDF5's own point selection is slow. A chunk is one region's tokens, so chunks are read straight
    into place, past its machinery: many of them by `scatter`, a few one by one. Of contiguous rows,
    many are read as one span and picked from memory, a few one by one.
    """
    if data.chunks is not None and data.id.get_create_plist().get_nfilters() == 0:
        as_bytes = out.reshape(len(out), -1).view(np.uint8)
        if len(rows) >= SCATTERED_ROWS:
            scatter.read(Path(data.file.filename), _offsets(data)[rows], as_bytes, places)
            return
        inner = (0,) * (data.ndim - 1)
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            data.id.read_direct_chunk((row, *inner), out=as_bytes[place])
    elif len(rows) * 8 >= len(data):
        first, last = int(rows.min()), int(rows.max())
        out[places] = data[first : last + 1][rows - first]
    else:
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            out[place] = data[row]


def begins(data: h5py.Dataset) -> npt.NDArray[np.int64] | int | None:
    """Where in the file the rows of an array begin: (n,) bytes where each is a chunk of its own,
    the first of them where they lie side by side, None where they are not kept as plain bytes."""
    if data.chunks is None:
        offset: int | None = data.id.get_offset()
        return offset
    if data.chunks != (1, *data.shape[1:]) or data.id.get_create_plist().get_nfilters():
        return None
    return _offsets(data)


def _offsets(data: h5py.Dataset) -> npt.NDArray[np.int64]:
    """Where in the file each row of an array lies whose chunks are one row each, (n,) bytes."""
    found: list[tuple[int, int]] = []
    data.id.chunk_iter(lambda chunk: found.append((chunk.chunk_offset[0], chunk.byte_offset)))
    if len(found) != len(data):
        raise OSError(f"{len(found)} of the {len(data)} rows of {data.name} were ever written")
    offsets = np.empty(len(data), dtype=np.int64)
    for row, offset in found:
        offsets[row] = offset
    return offsets


def read_block(data: h5py.Dataset, start: int, stop: int) -> npt.NDArray[Any]:
    """Read consecutive rows of a shard's array."""
    out = np.empty((stop - start, *data.shape[1:]), dtype=data.dtype)
    read_rows(data, np.arange(start, stop), out, np.arange(stop - start))
    return out


def checksum(path: Path, name: str, block_rows: int = 256) -> str:
    """Recompute the xxh3-128 of one array from the bytes on disk."""
    state = xxhash.xxh3_128()
    with open_shard(path) as file:
        data = file[name]
        for start in range(0, len(data), block_rows):
            state.update(read_block(data, start, min(start + block_rows, len(data))).data)
    return state.hexdigest()


def is_sound(path: Path) -> bool:
    """Whether a shard can be read and every array has its checksum."""
    try:
        checksums = read_info(path).checksums
        return all(checksum(path, name) == expected for name, expected in checksums.items())
    except (OSError, KeyError, RuntimeError, VerificationError):
        return False
