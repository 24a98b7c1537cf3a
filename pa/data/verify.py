"""Read a store back and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pa.data import shards
from pa.data.shards import ShardPlan
from pa.data.spec import digest_rows
from pa.data.store import Store
from pa.errors import VerificationError


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written: the file and what was found."""

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def verify(store: Store, *, full: bool = True) -> Iterator[Problem]:
    """Check structure, row counts and keys of a store; with `full`, checksums and finiteness too.

    Yields nothing where all is well. A store without a manifest is checked as far as it goes.
    """
    try:
        if digest_rows(store.rows) != store.spec.rows["sha256"]:
            what = "the table is not the one the spec was made from"
            yield Problem(store.path / "rows.parquet", what)
            return
        recorded = _recorded_checksums(store)
    except VerificationError as error:
        yield Problem(store.path, str(error))
        return
    for shard in store.plan:
        path = store.shard_path(shard)
        if not path.exists():
            yield Problem(path, "missing")
            continue
        yield from _verify_shard(store, shard, recorded.get(shard.name), full)


def _recorded_checksums(store: Store) -> dict[str, dict[str, str]]:
    if not store.is_complete:
        return {}
    checksums: dict[str, dict[str, str]] = store.manifest["checksums"]
    return checksums


def _verify_shard(
    store: Store, shard: ShardPlan, recorded: dict[str, str] | None, full: bool
) -> Iterator[Problem]:
    path = store.shard_path(shard)
    try:
        info = shards.read_info(path)
        if (info.first_row, info.n_rows) != (shard.start, shard.n_rows):
            yield Problem(
                path,
                f"holds rows {info.first_row}+{info.n_rows}, expected {shard.start}+{shard.n_rows}",
            )
        if info.key != store.shard_key(shard):
            yield Problem(
                path, "was made from other images, boxes, weights or options (key differs)"
            )
        if recorded is not None and info.checksums != recorded:
            yield Problem(path, "checksums differ from the manifest's")
        with shards.open_shard(path) as file:
            for name, shape in store.spec.representations.items():
                found = file[name].shape if name in file else None
                if found != (shard.n_rows, *shape):
                    yield Problem(path, f"{name}: shape {found}, expected {(shard.n_rows, *shape)}")
                    return
        if full:
            yield from _verify_arrays(store, shard, info)
    except (OSError, KeyError, RuntimeError, VerificationError) as error:
        yield Problem(path, f"unreadable ({error})")


def _verify_arrays(store: Store, shard: ShardPlan, info: shards.ShardInfo) -> Iterator[Problem]:
    path = store.shard_path(shard)
    for name, expected in info.checksums.items():
        if shards.checksum(path, name) != expected:
            yield Problem(
                path, f"{name}: checksum differs, bytes have changed since they were written"
            )
    storage = store.spec.precision["storage"]
    with shards.open_shard(path) as file:
        for name in store.spec.representations:
            for start in range(0, shard.n_rows, 256):
                block = shards.from_disk(file[name][start : start + 256], storage)
                if not np.isfinite(block).all():
                    yield Problem(
                        path, f"{name}: NaN or infinity in rows {shard.start + start}+256"
                    )
                    break
