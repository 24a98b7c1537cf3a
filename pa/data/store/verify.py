"""Read a store back, and report every issue with the part that has to be made again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import xxhash

from pa.data.store import shards
from pa.data.store.checksums import MISMATCH
from pa.data.store.manifest import ShardEntry
from pa.data.store.reader import MANIFEST, ROWS, SPEC, STORE_FORMAT, Store
from pa.data.store.shards import ROW_CHECKSUM, ROW_CHECKSUMS, UNREADABLE, ShardInfo, ShardPlan
from pa.data.store.spec import digest_rows
from pa.errors import MissingError, NewerFormatError, VerificationError, is_newer

Part = Literal["spec", "rows", "manifest", "shard", "index", "result"]

# A broken Parquet file may make polars panic, which is not an `Exception`.
BROKEN_TABLE = (VerificationError, pl.exceptions.PanicException)
BLOCK_ROWS = 256  # rows checked at a time: bounds memory


@dataclass(frozen=True)
class Issue:
    """A file that differs from what was written: what differs, and the part to make again.

    `newer` marks a file of a newer version of pa, which cannot be judged here.
    """

    file: Path
    what: str
    part: Part = "shard"
    newer: bool = False

    def __str__(self) -> str:
        has_path = self.what.startswith(f"{self.file}:")
        return self.what if has_path else f"{self.file}: {self.what}"


class _WithoutManifest(Store):
    """A store read as if it had no manifest, to distinguish a bad manifest from bad rows."""

    @property
    def is_complete(self) -> bool:
        return False


def verify(store: Store, *, full: bool = True) -> Iterator[Issue]:
    """Check structure, row counts and keys of a store; with `full`, checksums and finiteness too.

    Yield nothing for an undamaged store. Of a store without a manifest the existing shards are
    checked. Every file is compared with its own checksums, so that an issue names the damaged part:
    a shard that matches its own checksums, at its position and with its key, is undamaged, and a
    manifest that disagrees is not.
    """
    alone = _WithoutManifest(store.path, store.spec, store.shard_rows, store.source)
    try:
        if digest_rows(alone.rows) != store.spec.rows["sha256"]:
            raise VerificationError(f"{MISMATCH} spec.json")
    except BROKEN_TABLE as error:
        what = str(error)
        try:
            _ = store.rows
        except BROKEN_TABLE as with_manifest:  # names the manifest's checksum
            what = str(with_manifest)
        yield Issue(store.path / ROWS, what, "rows")
        return
    try:
        entries: Mapping[str, ShardEntry] = store.manifest.shards if store.is_complete else {}
    except VerificationError:  # reported by `_verify_manifest`
        entries = {}
    infos: dict[str, ShardInfo] = {}
    for shard in alone.plan:
        path = store.shard_path(shard)
        if not path.exists():
            yield Issue(path, "missing")
            continue
        # Before HDF5 opens it: damaged HDF5 structures can make it loop forever.
        entry = entries.get(shard.name)
        changed = entry.file_checksum.difference(path, full=full) if entry is not None else None
        if changed is not None:
            yield Issue(path, changed)
            continue
        try:
            infos[shard.name] = info = shards.read_info(path)
            yield from _verify_shard(alone, shard, info, full=full)
        except NewerFormatError as error:
            yield Issue(path, str(error), newer=True)
        except UNREADABLE as error:
            yield Issue(path, f"unreadable ({error})")
    if store.is_complete:
        yield from _verify_manifest(store, infos, len(alone.plan))


def _verify_shard(
    store: Store, shard: ShardPlan, info: ShardInfo, *, full: bool
) -> Iterator[Issue]:
    path, n = store.shard_path(shard), shard.n_rows
    if (info.first_row, info.n_rows) != (shard.start, n):
        yield Issue(path, f"holds rows {info.first_row}+{info.n_rows}, expected {shard.start}+{n}")
    if info.key != store.shard_key(shard):
        yield Issue(path, "was made from other images, boxes, weights or options (key differs)")
    spec, storage = store.spec, store.spec.precision["storage"]
    n_images = store.rows["image"].slice(shard.start, n).n_unique()
    expected = {
        **{
            name: ((n, *shards.disk_shape(shape, storage)), shards.DISK_DTYPES[storage])
            for name, shape in spec.representations.items()
        },
        **{name + ROW_CHECKSUMS: ((n,), ROW_CHECKSUM) for name in spec.representations},
        "valid": ((n,), np.dtype("u1")),
        "images": ((n_images, shards.HASH_BYTES), np.dtype("u1")),
    }
    faults = []
    with shards.open_shard(path) as file:
        for name, (shape, dtype) in expected.items():
            stored = file[name].shape if name in file else None
            if stored != shape:
                faults.append(f"{name}: shape {stored}, expected {shape}")
            elif file[name].dtype != dtype:
                faults.append(f"{name}: type {file[name].dtype.str}, expected {dtype.str}")
    if missing := {*spec.representations, *shards.UNROWED} ^ info.checksums.keys():
        faults.append(f"{', '.join(sorted(missing))}: array without a checksum")
    yield from (Issue(path, fault) for fault in faults)
    if full and not faults:
        yield from _verify_content(store, shard, info)


def _verify_content(store: Store, shard: ShardPlan, info: ShardInfo) -> Iterator[Issue]:
    """Check that the bytes of a shard are unchanged, finite and consistent."""
    path = store.shard_path(shard)
    for name in shards.changed_arrays(path, info):
        yield Issue(path, f"{name}: checksum differs, bytes have changed since they were written")
    valid = np.ones(shard.n_rows, dtype=np.uint8)  # (n,)
    for bad in info.bad:
        valid[bad.first_row - shard.start : bad.last_row + 1 - shard.start] = 0
    with shards.open_shard(path) as file:
        if not np.array_equal(file["valid"][:], valid):
            yield Issue(path, "valid: not the rows of the images listed as bad")
        for name in store.spec.representations:
            for start in range(0, shard.n_rows, BLOCK_ROWS):
                stored = file[name][start : start + BLOCK_ROWS]  # (≤ BLOCK_ROWS, …)
                if not np.isfinite(shards.from_disk(stored, store.spec.precision["storage"])).all():
                    rows = f"rows {shard.start + start}+{BLOCK_ROWS}"
                    yield Issue(path, f"{name}: NaN or infinity in {rows}")
                    break


def _verify_manifest(
    store: Store, infos: Mapping[str, ShardInfo], n_shards: int
) -> Iterator[Issue]:
    """Compare the manifest with the table of rows and with the attributes of the shards."""
    path = store.path / MANIFEST
    try:
        manifest = store.manifest
    except VerificationError as error:
        version = None
        with contextlib.suppress(*UNREADABLE):
            version = json.loads(path.read_text(encoding="utf-8"))["format"]
        yield Issue(path, str(error), "manifest", newer=is_newer(version, STORE_FORMAT))
        return
    if manifest.rows != xxhash.xxh3_128_hexdigest((store.path / ROWS).read_bytes()):
        yield Issue(store.path / ROWS, f"{MISMATCH} the manifest", "rows")
    for name, info in infos.items():
        entry = manifest.shards.get(name)
        for field in ("checksums", "key", "offsets"):
            if getattr(info, field) != getattr(entry, field, None):
                what = f"{field} of {name} differ between the shard and the manifest"
                yield Issue(path, what, "manifest")
    # Missing and unreadable shards are issues of their own.
    if len(infos) < n_shards:
        return
    if manifest.bad != [bad for info in infos.values() for bad in info.bad]:
        yield Issue(path, "its bad images differ from those of the shards", "manifest")
    listed = [(name, info.n_rows) for name, info in infos.items()]
    if [(name, entry.rows) for name, entry in manifest.shards.items()] != listed:
        yield Issue(path, "its list of shards does not match the table of rows", "manifest")


def unreadable_spec(folder: Path, error: Exception) -> Issue:
    """Return the issue of a store that cannot be opened."""
    newer = isinstance(error, NewerFormatError)
    what = "missing" if isinstance(error, MissingError) else str(error)
    return Issue(folder / SPEC, what, "spec", newer=newer)
