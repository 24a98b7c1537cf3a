"""One shard: an HDF5 file with the features of a block of consecutive rows.

A shard is written under a partial name, flushed, checksummed, synced and renamed, so a file with
the final name is complete. Every row of every array has a checksum, so that any read can be
checked; the checksum of an array is that of its row checksums. See docs/formats.md.

Shapes: n rows of the shard, M images of the shard, D width, L patch tokens.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import xxhash

from pa.data.files import HoldingFile, replacing, uninterrupted
from pa.data.store.spec import Spec
from pa.errors import (
    NewerFormatError,
    PaError,
    StorageError,
    UsageError,
    VerificationError,
    is_newer,
)

SHARD_FORMAT = 2  # of the HDF5 file; see docs/formats.md
ROW_CHECKSUMS = ".xxh3"  # added to an array's name: its row checksums
ROW_CHECKSUM = np.dtype("<u8")  # xxh3-64: fast, and enough to detect accidental changes
CHECKED_ROWS = 256  # rows checked at a time: bounds memory
UNROWED = ("valid", "images")  # small arrays with one checksum instead of one per row
HASH_BYTES = 16  # xxh3-128 of an image's file; all zero for one that could not be read

# HDF5 has no bfloat16: its bits are stored as uint16, and the spec names the type. int8 stores each
# vector as its bytes followed by the four bytes of its scale: one piece to read, as all others.
TYPES = {"fp16": "<f2", "bf16": "<u2", "fp32": "<f4", "int8": "u1"}
DISK_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(code) for name, code in TYPES.items()}
LARGEST_FLOAT = 3.4028234663852886e38  # of IEEE float32
LARGEST = {
    "fp16": 65504.0,  # IEEE half precision
    "bf16": 3.3895313892515355e38,  # float32 with 8 bits of significand
    **dict.fromkeys(("fp32", "int8"), LARGEST_FLOAT),
}
INT8_LARGEST = 127  # symmetric: -128 is not used
SCALE_BYTES = 4  # float32, little-endian


def disk_shape(shape: Sequence[int], storage: str) -> tuple[int, ...]:
    """Return the shape on disk of a row's array; int8 appends the scale to each vector."""
    if storage != "int8":
        return tuple(shape)
    return (*shape[:-1], shape[-1] + SCALE_BYTES)


def to_disk(values: npt.NDArray[np.float32], storage: str) -> npt.NDArray[Any]:
    """Convert float32 (…, D) to the type on disk; bf16 rounds to nearest even.

    int8: scale = largest magnitude of the vector / 127, and each value is the nearest multiple of
    it, halves to even: an error of at most half a scale. Returns (…, D + 4) bytes.
    """
    if storage == "int8":
        largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)  # (…, 1)
        scales = (largest / np.float32(INT8_LARGEST)).astype("<f4")  # (…, 1)
        steps = np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)  # (…, D)
        # A subnormal scale has few significant bits: its quotient may exceed 127.
        steps = np.rint(steps).clip(-INT8_LARGEST, INT8_LARGEST).astype(np.int8)
        return np.concatenate([steps.view(np.uint8), scales.view(np.uint8)], axis=-1)
    if storage != "bf16":
        return values.astype(DISK_DTYPES[storage])
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)  # (…, D)
    # Add just below half of the last kept bit, and 1 more if that bit is odd: ties go to even.
    rounded = (bits + (0x7FFF + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return rounded.astype(np.uint16)


def from_disk(values: npt.NDArray[Any], storage: str) -> npt.NDArray[Any]:
    """Return fp16 and fp32 unchanged; bf16 widened and int8 scaled to float32 (…, D)."""
    if storage == "int8":
        scales = np.ascontiguousarray(values[..., -SCALE_BYTES:]).view("<f4")  # (…, 1)
        floats: npt.NDArray[np.float32] = values[..., :-SCALE_BYTES].view(np.int8) * scales
        return floats
    if storage != "bf16":
        return values
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)


# What HDF5 and parsers raise on changed bytes.
UNREADABLE = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError)

RowChecksums = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShardPlan:
    """Rows `start` to `stop` of the store, and the file that holds them."""

    index: int
    start: int  # row ids of the store
    stop: int  # exclusive

    @property
    def n_rows(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        return f"shard-{self.index:05d}.h5"


def plan(image_of_row: npt.NDArray[np.int64], shard_rows: int) -> list[ShardPlan]:
    """Divide rows into shards of at most `shard_rows`, or of one image, never inside an image."""
    if len(image_of_row) == 0:
        return []
    # The last image ends with the rows.
    image_ends = [*(np.flatnonzero(np.diff(image_of_row)) + 1).tolist(), len(image_of_row)]
    # Greedy from the front: the shards of the first N images do not depend on how many follow.
    cuts, end = [0], 0
    for image_end in image_ends:
        if image_end - cuts[-1] > shard_rows and end > cuts[-1]:
            cuts.append(end)
        end = image_end
    return plan_of_sizes(np.diff([*cuts, end]).tolist())


def plan_of_sizes(sizes: Sequence[int]) -> list[ShardPlan]:
    """Return consecutive shards of these numbers of rows."""
    cuts = [0, *itertools.accumulate(sizes)]
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
    """Write the rows of one shard, which shows `images`, in order; created by `writing`."""

    def __init__(
        self,
        file: h5py.File,
        disk: HoldingFile,
        shard: ShardPlan,
        spec: Spec,
        images: Sequence[int],
    ) -> None:
        self._file = file
        self._disk = disk
        self._shard = shard
        self._storage = spec.precision["storage"]
        self._filled = 0  # rows written so far
        self._bad: list[BadImage] = []
        self._valid = np.ones(shard.n_rows, dtype=np.uint8)  # (n,)
        self._row_checksums: dict[str, list[RowChecksums]] = {n: [] for n in spec.representations}
        self._positions = {image: i for i, image in enumerate(images)}  # row of `_images` by image
        self._images = np.zeros((len(images), HASH_BYTES), dtype=np.uint8)  # (M, 16)
        for name, shape in spec.representations.items():
            on_disk = (shard.n_rows, *disk_shape(shape, self._storage))
            # Contiguous (chunks=None): readers find a row by its number, without HDF5.
            file.create_dataset(name, on_disk, DISK_DTYPES[self._storage], chunks=None)

    def append(
        self, features: Mapping[str, npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Write the next rows: arrays (n, …) per representation, and which rows have an image.

        Raise `UsageError` if a feature is not finite or does not fit the storage type.
        """
        limit = LARGEST[self._storage]
        for name, values in features.items():
            largest = float(np.abs(values).max(initial=0.0))
            if largest <= limit:
                continue
            per_row = np.abs(values).reshape(len(values), -1).max(1)  # (n,)
            rows = np.flatnonzero(~(per_row <= limit))  # also NaN
            where = f"{name} of row {self._shard.start + self._filled + int(rows[0])}"
            if np.isfinite(largest):
                raise UsageError(
                    f"{where} reaches {largest:.4g}, more than {self._storage} can hold "
                    f"({limit:.4g}). Store with --storage bf16 or --storage fp32."
                )
            raise UsageError(
                f"{where} holds NaN or infinity ({len(rows)} rows of this batch do). Encode with "
                f"--dtype fp32; if it remains, the checkpoint itself is damaged."
            )
        stored = {name: to_disk(values, self._storage) for name, values in features.items()}
        self.append_stored(stored, valid)

    def append_stored(
        self, arrays: Mapping[str, npt.NDArray[Any]], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Write the next rows in the type on disk, as read from a store of the same precision.

        Arrays (n, …) per representation; nothing is rounded again.
        """
        block = slice(self._filled, self._filled + len(valid))  # rows of the shard
        for name, data in arrays.items():
            with uninterrupted():
                self._file[name][block] = data
            self._row_checksums[name].append(row_checksums(data))
        self._disk.check()
        self._valid[block] = valid
        self._filled += len(valid)

    def record_bad(self, bad: BadImage) -> None:
        self._bad.append(bad)

    def record_image(self, image: int, xxh3: bytes) -> None:
        """Record the hash of an image's file, by the number of the image; zero by default."""
        self._images[self._positions[image]] = np.frombuffer(xxh3, dtype=np.uint8)

    def finish(self, key: str) -> None:
        """Complete the shard: validity, checksums, and the key of what made it."""
        if self._filled != self._shard.n_rows:
            raise StorageError(
                f"{self._shard.name}: {self._filled} of {self._shard.n_rows} rows were written"
            )
        self._file.create_dataset("valid", data=self._valid)
        checksums = {"valid": xxhash.xxh3_128_hexdigest(self._valid.data)}
        for name, parts in self._row_checksums.items():
            rows = np.concatenate(parts)  # (n,)
            self._file.create_dataset(name + ROW_CHECKSUMS, data=rows)
            checksums[name] = array_checksum(rows)
        self._file.create_dataset("images", data=self._images)
        checksums["images"] = xxhash.xxh3_128_hexdigest(self._images.data)
        self._file.attrs.update(
            format=SHARD_FORMAT,
            first_row=self._shard.start,
            n_rows=self._shard.n_rows,
            key=key,
            checksums=json.dumps(checksums),
            bad=json.dumps([asdict(bad) for bad in self._bad], ensure_ascii=False),
        )


@contextlib.contextmanager
def writing(
    directory: Path, shard: ShardPlan, spec: Spec, key: str, images: Sequence[int]
) -> Iterator[ShardWriter]:
    """Write one shard, which gets its final name when the block ends without an error."""
    with replacing(directory / shard.name) as partial, HoldingFile(partial) as disk:
        with uninterrupted():
            file = h5py.File(disk, "w")
            writer = ShardWriter(file, disk, shard, spec, images)
        try:
            yield writer
            with uninterrupted():
                writer.finish(key)
        finally:
            with uninterrupted():
                file.close()
        # HDF5 does not report a failed write: before the rename, the file itself is asked.
        disk.check()


@dataclass(frozen=True)
class ShardInfo:
    """The attributes of a finished shard."""

    first_row: int
    n_rows: int
    key: str  # `Store.shard_key`
    checksums: dict[str, str]  # xxh3-128 by array
    offsets: dict[str, int]  # byte at which an array, or its row checksums, begins
    bad: list[BadImage]


def read_info(path: Path) -> ShardInfo:
    """Read the attributes of a shard. Raise `VerificationError`, or `NewerFormatError`."""
    with open_shard(path) as file:
        version = int(file.attrs["format"])
        if is_newer(version, SHARD_FORMAT):
            raise NewerFormatError(path, "shard", version, SHARD_FORMAT)
        if version != SHARD_FORMAT:
            raise ValueError(f"format {version}, this version reads {SHARD_FORMAT}")
        return ShardInfo(
            first_row=int(file.attrs["first_row"]),
            n_rows=int(file.attrs["n_rows"]),
            key=str(file.attrs["key"]),
            checksums=dict(json.loads(file.attrs["checksums"])),
            offsets={name: int(data.id.get_offset()) for name, data in file.items()},
            bad=[BadImage(**fields) for fields in json.loads(file.attrs["bad"])],
        )


def read_images(path: Path, offset: int, n_images: int, checksum: str) -> npt.NDArray[np.uint8]:
    """Return the hashes of the image files of a shard, (M, 16), in the order of its images.

    They begin at byte `offset`. Raise `VerificationError` if they changed since they were written.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(n_images * HASH_BYTES)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    if xxhash.xxh3_128_hexdigest(data) != checksum:
        raise damaged(path, "the hashes of its images have changed since they were written")
    return np.frombuffer(data, dtype=np.uint8).reshape(n_images, HASH_BYTES)


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[h5py.File]:
    """Open a shard read-only.

    Raise `VerificationError` for a file that is missing, damaged, or lacks what the block reads.
    """
    if not path.exists():
        raise damaged(path, "it does not exist")
    try:
        # Without a file lock: locks fail on some network file systems.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except PaError:
        raise
    except UNREADABLE as error:
        text = str(error).splitlines() or [type(error).__name__]
        raise damaged(path, text[0]) from None


def damaged(path: Path, reason: str) -> VerificationError:
    """Return the error for a damaged shard, with the remedy."""
    return VerificationError(
        f"{path} is not a readable shard ({reason}). Delete it if it exists, and run the "
        f"`pa extract` command of the store, which encodes this shard again. `pa verify` checks "
        f"the others."
    )


def row_checksums(rows: npt.NDArray[Any], positions: Sequence[int] | None = None) -> RowChecksums:
    """Return the xxh3-64 of the bytes of each row (n,), or of the rows at `positions`."""
    flat = np.ascontiguousarray(rows).data.cast("B")  # all bytes
    width = rows[:1].nbytes  # bytes of a row
    digest = xxhash.xxh3_64_intdigest
    numbers = range(len(rows)) if positions is None else positions
    return np.array([digest(flat[i * width : (i + 1) * width]) for i in numbers], ROW_CHECKSUM)


def array_checksum(rows: RowChecksums) -> str:
    """Return the checksum of an array: xxh3-128 (hex) of its row checksums (n,)."""
    return xxhash.xxh3_128_hexdigest(rows.data)


def changed_arrays(path: Path, info: ShardInfo) -> Iterator[str]:
    """Yield the arrays whose bytes have changed. Raise `VerificationError` if it is unreadable."""
    with open_shard(path) as file:
        for name, expected in info.checksums.items():
            data = file[name]
            if name in UNROWED:
                same = xxhash.xxh3_128_hexdigest(data[:]) == expected
            else:
                recorded = file[name + ROW_CHECKSUMS][:]  # (n,)
                starts = range(0, info.n_rows, CHECKED_ROWS)
                blocks = (row_checksums(data[at : at + CHECKED_ROWS]) for at in starts)
                same = array_checksum(recorded) == expected
                same = same and np.array_equal(np.concatenate([*blocks]), recorded)
            if not same:
                yield name


def is_sound(path: Path) -> bool:
    """Return whether a shard can be read and every array matches its checksum."""
    try:
        return not any(changed_arrays(path, read_info(path)))
    except VerificationError:
        return False
