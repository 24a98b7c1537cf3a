"""Writing a store: begin it, claim and fill its shards, take over those of others, finish it.

Several processes may write one store: a lock protects each shard in work.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import xxhash
from filelock import FileLock, Timeout

from pa.data.files import (
    PARTIAL_SUFFIX,
    append_lines,
    link_or_copy,
    remove,
    remove_stale,
    storage_errors,
    write_json,
    write_parquet,
)
from pa.data.store import checksums, shards
from pa.data.store import manifest as manifests
from pa.data.store.checksums import MISMATCH, with_checksum
from pa.data.store.reader import LOCKS, MANIFEST, ROWS, RUNS, SPEC, STORE_FORMAT, Store
from pa.data.store.shards import ShardPlan, ShardWriter
from pa.data.store.spec import Spec, digest_rows

DEFAULT_SHARD_ROWS = 1024  # small enough that a kill loses little work


def create(
    path: Path, spec: Spec, rows: pl.DataFrame, source: dict[str, Any], shard_rows: int
) -> Store:
    """Begin a store, or open the existing one; several processes may do so at once."""
    if not (path / SPEC).exists():
        # The spec comes last: a directory with a spec also has its table of rows.
        write_parquet(path / ROWS, rows)
        _write_spec(Store(path, spec, shard_rows, source), once=True)
    return Store.open(path, incomplete=True)


def _write_spec(store: Store, *, once: bool) -> None:
    fields = {
        "format": STORE_FORMAT,
        "fingerprint": store.fingerprint,
        "spec": store.spec.to_json(),
        "layout": {"shard_rows": store.shard_rows},
        "source": store.source,
    }
    write_json(store.path / SPEC, with_checksum(fields), once=once)


@contextlib.contextmanager
def claim(store: Store, shard: ShardPlan) -> Iterator[ShardWriter | None]:
    """Lock a shard and yield its writer; None if it exists or another process holds the lock.

    The shard gets its final name when the block ends without an error.
    """
    with _locked(store, shard.name, timeout=0) as locked:
        if not locked or store.shard_path(shard).exists():
            yield None
            return
        # Not those of other hosts: their locks may not be visible here, so they may be active.
        remove_stale(store.path, shard.name)
        images = store.rows["image"].slice(shard.start, shard.n_rows)
        numbers = images.unique(maintain_order=True).to_list()
        key = store.shard_key(shard)
        with shards.writing(store.path, shard, store.spec, key, numbers) as writer:
            yield writer
        note = _note(store, shard)
        # Another process may have completed the store by now, and removed the folder of locks.
        with storage_errors(note), contextlib.suppress(FileNotFoundError):
            checksums.save(store.shard_path(shard), note)


def _note(store: Store, shard: ShardPlan) -> Path:
    """Return where the checksum of a shard's file is kept until the manifest has it."""
    return store.path / LOCKS / f"{shard.name}.checksum"


@contextlib.contextmanager
def _locked(store: Store, name: str, timeout: float = -1) -> Iterator[bool]:
    """Hold a lock of the store; yield False if it is not acquired within `timeout` seconds."""
    path = store.path / LOCKS / f"{name}.lock"
    lock = FileLock(path)  # flock: released by the kernel when the process dies
    with storage_errors(path):
        while not lock.is_locked:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=timeout)
            except FileNotFoundError:
                # The process that completes the store removes the folder of locks, perhaps after it
                # was made here: then the store is complete, or the next attempt succeeds.
                if store.is_complete:
                    break
            except Timeout:
                break
    try:
        yield lock.is_locked
    finally:
        lock.release()
        # Not while shards are being repaired: without the locks, writers would not see another.
        if store.is_complete and not store.missing():
            shutil.rmtree(path.parent, ignore_errors=True)


def adopt(
    store: Store,
    source: Store,
    changed: Callable[[Sequence[ShardPlan]], Collection[ShardPlan]] = lambda shards: (),
) -> int:
    """Link finished shards of another store that hold the same bytes, and return their number.

    `changed` returns those shards of the source store whose images changed; they are skipped.
    """
    # Equal keys mean equal bytes, unless the shard of the other store was damaged since.
    by_key = source.shards_by_key()
    pairs = [(shard, by_key.get(store.shard_key(shard))) for shard in store.missing()]
    sound = [(s, twin) for s, twin in pairs if twin is not None and source.is_sound(twin)]
    unwanted = changed([twin for _, twin in sound])
    wanted = [(shard, twin) for shard, twin in sound if twin not in unwanted]
    for shard, twin in wanted:
        link_or_copy(source.shard_path(twin), store.shard_path(shard))
    return len(wanted)


def discard(store: Store, unwanted: Collection[ShardPlan], root: Path) -> None:
    """Remove shards, which will be encoded again from the images under `root`."""
    # The manifest first, so that at no moment a store without these shards looks complete.
    remove(store.path / MANIFEST)
    if store.source["root"] != str(root):
        store.source["root"] = str(root)
        _write_spec(store, once=False)
    store.forget_manifest()
    for shard in unwanted:
        remove(store.shard_path(shard))


def finish(store: Store) -> None:
    """Write the manifest once every shard exists, and remove what only writers needed.

    The locks of a run that was killed at this point are removed from a complete store.
    """
    if store.is_complete and not (store.path / LOCKS).exists():
        return
    with _locked(store, "manifest") as locked:
        if locked and not store.is_complete:
            # All shards exist, so partial ones of any host are left over.
            for partial in store.path.glob(f"*{PARTIAL_SUFFIX}"):
                partial.unlink(missing_ok=True)
            if digest_rows(store.rows) != store.spec.rows["sha256"]:
                raise store.damaged(ROWS, f"{MISMATCH} spec.json")
            table = xxhash.xxh3_128_hexdigest((store.path / ROWS).read_bytes())
            entries = []
            for shard in store.plan:
                path = store.shard_path(shard)
                info = shards.read_info(path)
                if info.key != store.shard_key(shard):
                    what = "it was made from other images, boxes, weights or options"
                    raise shards.damaged(path, what)
                entries.append((shard.name, info, checksums.load(path, _note(store, shard))))
            write_json(store.path / MANIFEST, manifests.compose(store.identity, table, entries))


def log_run(store: Store, entry: dict[str, Any]) -> None:
    """Append one line to runs.jsonl."""
    append_lines(store.path / RUNS, [entry])
