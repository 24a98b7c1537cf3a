"""Read a store back and say what is wrong with it, and which part has to be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import xxhash

from pa.data.store import shards
from pa.data.store.manifest import ShardEntry
from pa.data.store.reader import MANIFEST, ROWS, SPEC, STORE_FORMAT, Store
from pa.data.store.shards import ROW_CHECKSUM, ROW_CHECKSUMS, UNREADABLE, ShardInfo, ShardPlan
from pa.data.store.spec import digest_rows
from pa.errors import MissingError, NewerFormatError, VerificationError, is_newer

Part = Literal["spec", "rows", "manifest", "shard"]

# A broken Parquet file may make polars panic, which is no Exception.
BROKEN_TABLE = (VerificationError, pl.exceptions.PanicException)
BLOCK_ROWS = 256


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written: the file, what was found, the part to make again.

    `newer` is what a newer version of pa wrote: nothing says that it is bad.
    """

    file: Path
    what: str
    part: Part = "shard"
    newer: bool = False

    def __str__(self) -> str:
        named = self.what.startswith(f"{self.file}:")
        return self.what if named else f"{self.file}: {self.what}"


class _Unfinished(Store):
    """A store looked at as if it had no manifest, to tell a bad manifest from bad rows."""

    @property
    def is_complete(self) -> bool:
        return False


def verify(store: Store, *, full: bool = True) -> Iterator[Problem]:
    """Check structure, row counts and keys of a store; with `full`, checksums and finiteness too.

    Yields nothing where all is well. A store without a manifest is checked as far as it goes. What
    is checked is what was written, so that a problem names the part that is bad: a shard that holds
    what its own checksums say, at the right place and with the right key, is good, and a manifest
    that says otherwise is not.
    """
    alone = _Unfinished(store.path, store.spec, store.shard_rows, store.source)
    try:
        if digest_rows(alone.rows) != store.spec.rows["sha256"]:
            raise VerificationError("the table is not the one the spec was made from")
    except BROKEN_TABLE as error:
        what = _of_rows(store, error)
        yield Problem(store.path / ROWS, what, "rows")
        return
    infos: dict[str, ShardInfo] = {}
    entries = _entries(store)
    for shard in alone.plan:
        path = store.shard_path(shard)
        if not path.exists():
            yield Problem(path, "missing")
            continue
        # Before HDF5 opens it: damaged HDF5 structures can make it loop forever.
        entry = entries.get(shard.name)
        changed = entry.file.difference(path, full=full) if entry is not None else None
        if changed is not None:
            yield Problem(path, changed)
            continue
        checked = _Shard(alone, shard)
        yield from checked.problems(full=full)
        if checked.info is not None:
            infos[shard.name] = checked.info
    if store.is_complete:
        yield from _verify_manifest(store, infos, len(alone.plan))


def _entries(store: Store) -> Mapping[str, ShardEntry]:
    """The manifest's shards; none where it does not exist, or is damaged, which is reported."""
    try:
        return store.manifest.shards if store.is_complete else {}
    except VerificationError:
        return {}


def _of_rows(store: Store, error: BaseException) -> str:
    """What is wrong with the table; the manifest's own word where there is one."""
    try:
        _ = store.rows
    except BROKEN_TABLE as told:
        return str(told)
    return str(error)


class _Shard:
    """One shard that is there, and what it says of itself once it was read."""

    def __init__(self, store: Store, shard: ShardPlan) -> None:
        self.store = store
        self.shard = shard
        self.path = store.shard_path(shard)
        self.info: ShardInfo | None = None

    def problems(self, *, full: bool) -> Iterator[Problem]:
        try:
            self.info = shards.read_info(self.path)
            yield from self._place()
            found = list(self._arrays())
            yield from found
            if full and not found:
                yield from self._content()
        except NewerFormatError as error:
            yield Problem(self.path, str(error), newer=True)
        except UNREADABLE as error:
            yield Problem(self.path, f"unreadable ({error})")

    def _place(self) -> Iterator[Problem]:
        """Whether it holds the rows it should, made from what it should."""
        info, shard = self._info, self.shard
        if (info.first_row, info.n_rows) != (shard.start, shard.n_rows):
            yield Problem(
                self.path,
                f"holds rows {info.first_row}+{info.n_rows}, expected {shard.start}+{shard.n_rows}",
            )
        if info.key != self.store.shard_key(shard):
            yield Problem(
                self.path, "was made from other images, boxes, weights or options (key differs)"
            )

    def _arrays(self) -> Iterator[Problem]:
        """Whether every array is there, with its shape and type, and a checksum."""
        n, spec = self.shard.n_rows, self.store.spec
        storage = spec.precision["storage"]
        dtype = shards.DISK_DTYPES[storage]
        expected = {
            name: ((n, *shards.disk_shape(shape, storage)), dtype)
            for name, shape in spec.representations.items()
        }
        for name in spec.representations:
            expected[name + ROW_CHECKSUMS] = ((n,), ROW_CHECKSUM)
        expected["valid"] = ((n,), np.dtype("u1"))
        n_images = self.store.rows["image"].slice(self.shard.start, n).n_unique()
        expected["images"] = ((n_images, shards.HASH_BYTES), np.dtype("u1"))
        with shards.open_shard(self.path) as file:
            for name, (shape, kind) in expected.items():
                found = (file[name].shape, file[name].dtype) if name in file else (None, kind)
                if found[0] != shape:
                    yield Problem(self.path, f"{name}: shape {found[0]}, expected {shape}")
                elif found[1] != kind:
                    yield Problem(self.path, f"{name}: type {found[1].str}, expected {kind.str}")
        if missing := {*spec.representations, *shards.UNROWED} ^ self._info.checksums.keys():
            yield Problem(self.path, f"{', '.join(sorted(missing))}: array without a checksum")

    def _content(self) -> Iterator[Problem]:
        """Whether the bytes are those that were written, are finite, and agree with each other."""
        for name in shards.changed_arrays(self.path, self._info):
            yield Problem(
                self.path, f"{name}: checksum differs, bytes have changed since they were written"
            )
        valid = np.ones(self.shard.n_rows, dtype=np.uint8)
        for bad in self._info.bad:
            valid[bad.first_row - self.shard.start : bad.last_row + 1 - self.shard.start] = 0
        storage = self.store.spec.precision["storage"]
        with shards.open_shard(self.path) as file:
            if not np.array_equal(file["valid"][:], valid):
                yield Problem(self.path, "valid: not the rows of the images listed as bad")
            for name in self.store.spec.representations:
                for start in range(0, self.shard.n_rows, BLOCK_ROWS):
                    block = shards.from_disk(file[name][start : start + BLOCK_ROWS], storage)
                    if not np.isfinite(block).all():
                        rows = f"rows {self.shard.start + start}+{BLOCK_ROWS}"
                        yield Problem(self.path, f"{name}: NaN or infinity in {rows}")
                        break

    @property
    def _info(self) -> ShardInfo:
        assert self.info is not None
        return self.info


def _verify_manifest(
    store: Store, infos: Mapping[str, ShardInfo], n_shards: int
) -> Iterator[Problem]:
    """Compare the manifest with the table of rows and with what the shards say of themselves."""
    path = store.path / MANIFEST
    try:
        manifest = store.manifest
    except (*UNREADABLE, VerificationError) as error:
        newer = is_newer(_format_of(path), STORE_FORMAT)
        yield Problem(path, str(error), "manifest", newer=newer)
        return
    if manifest.rows != xxhash.xxh3_128_hexdigest((store.path / ROWS).read_bytes()):
        yield Problem(store.path / ROWS, "its checksum is not the manifest's", "rows")
    for name, info in infos.items():
        entry = manifest.shards.get(name)
        for field in ("checksums", "key", "offsets"):
            if getattr(info, field) != getattr(entry, field, None):
                yield Problem(path, f"{field} of {name} differ from the manifest's", "manifest")
    if len(infos) < n_shards:
        return  # what is missing or unreadable is a problem of its own
    if manifest.bad != [bad for info in infos.values() for bad in info.bad]:
        yield Problem(path, "its bad images are not those of the shards", "manifest")
    listed = [(name, info.n_rows) for name, info in infos.items()]
    if [(name, entry.rows) for name, entry in manifest.shards.items()] != listed:
        yield Problem(path, "its list of shards is not that of the table of rows", "manifest")


def _format_of(path: Path) -> object:
    """The format number of a JSON file, None where there is none to read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["format"]
    except UNREADABLE:
        return None


def unreadable_spec(folder: Path, error: Exception) -> Problem:
    """The problem of a store that cannot even be opened."""
    newer = isinstance(error, NewerFormatError)
    what = "missing" if isinstance(error, MissingError) else str(error)
    return Problem(folder / SPEC, what, "spec", newer=newer)
