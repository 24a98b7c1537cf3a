"""`pa status` and `pa verify`: what the stores of the workspace say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data import stores
from pa.data.store import Store
from pa.data.stores import StoreQuery
from pa.data.verify import Problem, verify
from pa.errors import FingerprintError


def check(
    config: Config, query: StoreQuery, *, full: bool
) -> Iterator[tuple[Store, list[Problem]]]:
    """Verify every store that fits; see `pa.data.verify`."""
    for store in stores.find(config.features, query):
        yield store, list(verify(store, full=full))


def check_indexes(config: Config) -> Iterator[tuple[Path, str | None]]:
    """Read every index of the workspace back: its directory, and what is wrong or None."""
    from pa.index.stored import check_files, find_indexes

    for directory, info in find_indexes(config.indexes):
        try:
            check_files(directory, info, verify=True)
            yield directory, None
        except FingerprintError as error:
            yield directory, str(error)


@dataclass(frozen=True)
class StoreStatus:
    """How far a store is, from its files alone."""

    store: Store
    shards_done: int
    shards_in_work: int
    bytes: int

    @property
    def shards(self) -> int:
        return len(self.store.plan)

    @property
    def rows_done(self) -> int:
        missing = {shard.index for shard in self.store.missing()}
        return sum(shard.n_rows for shard in self.store.plan if shard.index not in missing)

    def to_json(self) -> dict[str, Any]:
        store = self.store
        return {
            "store": store.title,
            "path": str(store.path),
            "fingerprint": store.fingerprint,
            "rows": store.n_rows,
            "rows_done": self.rows_done,
            "shards": self.shards,
            "shards_done": self.shards_done,
            "shards_in_work": self.shards_in_work,
            "complete": store.is_complete,
            "bad_images": len(store.bad) if store.is_complete else None,
            "bytes": self.bytes,
            "representations": store.spec.representations,
        }


def status(config: Config, query: StoreQuery | None = None) -> list[StoreStatus]:
    """The state of every store of the workspace."""
    return [_status(store) for store in stores.find(config.features, query)]


def _status(store: Store) -> StoreStatus:
    files = [path for path in store.path.rglob("*") if path.is_file()]
    return StoreStatus(
        store=store,
        shards_done=len(store.plan) - len(store.missing()),
        shards_in_work=sum(path.name.endswith(".partial") for path in files),
        bytes=sum(path.stat().st_size for path in files),
    )
