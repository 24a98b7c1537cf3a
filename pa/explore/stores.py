"""The stores of a workspace, grouped into galleries and kept open.

A gallery is all stores of one table of regions, so that a row id refers to the same region in each.
A column is one representation of one store. Stores, their tables and their indexes stay open after
the first request; new and replaced files are noticed by inode and modification time.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pa.config import Config
from pa.data.store.find import protocol
from pa.data.store.reader import SPEC, Store
from pa.data.store.spec import digest
from pa.errors import MissingError, PaError, UnknownNameError
from pa.explore.browsing import Browser
from pa.explore.neighbour_shares import NeighbourShares
from pa.index.stored import INFO, Index, IndexKey, open_index

Identity = tuple[int, int]  # inode and modification time in ns


@dataclass(frozen=True)
class Column:
    """One representation of one store, which has one index."""

    store: Store
    representation: str

    @property
    def id(self) -> str:
        return f"{self.store.spec.short}.{self.representation}"


class Gallery:
    """Stores of the same regions: complete ones in `stores`, others in `unfinished`."""

    def __init__(self, id: str, stores: list[Store], unfinished: list[Store]) -> None:
        self.id = id
        self.stores = stores
        self.unfinished = unfinished
        for store in stores[1:]:
            store.share_rows(stores[0])

    @property
    def any(self) -> Store:
        """Return one store; rows, boxes and images are equal in all of them."""
        return (self.stores or self.unfinished)[0]

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns of the complete stores by id, sorted by encoder."""
        columns = [Column(store, name) for store in self.stores for name in vector_names(store)]
        return {column.id: column for column in columns}

    @cached_property
    def browser(self) -> Browser:
        return Browser(self.any)

    @cached_property
    def shares(self) -> NeighbourShares:
        return NeighbourShares(self.any)

    def column(self, id: str) -> Column:
        """Return a column. Raise `UnknownNameError` if it does not exist."""
        if id not in self.columns:
            raise UnknownNameError("column", id, self.columns)
        return self.columns[id]

    def select(self, ids: Iterable[str]) -> list[Column]:
        """Return the columns of these ids, each once."""
        return [self.column(id) for id in dict.fromkeys(ids)]


def vector_names(store: Store) -> list[str]:
    """Return the representations that can be searched: those with one vector per region."""
    return [name for name, shape in store.spec.representations.items() if len(shape) == 1]


class OpenStores:
    """The galleries of a workspace, and the open indexes of their columns. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._stores: dict[Path, tuple[Identity, Store]] = {}
        self._by_id: dict[str, Gallery] = {}
        self._indexes: dict[str, tuple[Identity, Index]] = {}

    def all(self) -> tuple[list[Gallery], list[str]]:
        """Return every gallery, best choice first, and the errors of damaged stores."""
        with self._lock:
            stores, faults = self._find_stores()
            groups: dict[str, list[Store]] = {}
            for store in stores:
                groups.setdefault(_gallery_id(store), []).append(store)
            previous, self._by_id = self._by_id, {}
            for id, members in groups.items():
                complete = [store for store in members if store.is_complete]
                unfinished = [store for store in members if not store.is_complete]
                known = previous.get(id)
                if known is None or (known.stores, known.unfinished) != (complete, unfinished):
                    known = Gallery(id, complete, unfinished)
                self._by_id[id] = known
            return sorted(self._by_id.values(), key=self._rank), faults

    def get(self, id: str) -> Gallery:
        """Return a gallery. Raise `UnknownNameError` if no store belongs to it."""
        if id not in self._by_id:
            self.all()
        gallery = self._by_id.get(id)
        if gallery is None:
            raise UnknownNameError("gallery", id, self._by_id)
        return gallery

    def index(self, column: Column) -> Index:
        """Return the memory-mapped index of a column.

        Raise as `open_index`, or `MissingError` with the command that builds it.
        """
        try:
            identity = _identity(self._index_file(column))
        except OSError:
            raise MissingError(
                f"there is no index of {column.store.title} · {column.representation} yet. Build "
                f"it, then try again:\n  {self.index_command(column)}"
            ) from None
        with self._lock:
            known = self._indexes.get(column.id)
            if known is not None and known[0] == identity and known[1].store is column.store:
                return known[1]
            index = open_index(column.store, column.representation, self.config.indexes)
            self._indexes[column.id] = (identity, index)
            return index

    def is_indexed(self, column: Column) -> bool:
        return self._index_file(column).is_file()

    def _index_file(self, column: Column) -> Path:
        key = IndexKey(column.store.fingerprint, column.representation)
        return key.directory(self.config.indexes) / INFO

    def index_command(self, column: Column) -> str:
        """Return the command that builds the index of a column and missing ones of its store."""
        store, workspace = column.store, str(self.config.workspace)
        names = [
            name
            for name in vector_names(store)
            if name == column.representation or not self.is_indexed(Column(store, name))
        ]
        return (
            f"pa index build --store {store.spec.short} --representation {','.join(names)} "
            f"--workspace {shlex.quote(workspace)}"
        )

    def _find_stores(self) -> tuple[list[Store], list[str]]:
        """Open new and replaced stores. Return those that can be searched, and the errors."""
        stores, faults, seen = [], [], set()
        for spec in sorted(self.config.features.glob(f"*/*/*/*/*/{SPEC}")):
            try:
                identity = _identity(spec)
                known = self._stores.get(spec)
                if known is None or known[0] != identity:
                    opened = Store.open(spec.parent, incomplete=True)
                    known = self._stores[spec] = (identity, opened)
                store = known[1]
                if vector_names(store):
                    _gallery_id(store)  # raises if the view is unreadable
                    stores.append(store)
                seen.add(spec)
            except (PaError, OSError) as error:
                faults.append(str(error))
        for removed in set(self._stores) - seen:
            del self._stores[removed]
        return stores, faults

    def _rank(self, gallery: Gallery) -> tuple[object, ...]:
        """Sort complete galleries first, then that of pa.toml, then by size."""
        settings, spec = self.config.settings, gallery.any.spec
        dataset = settings.datasets.get(spec.dataset)
        is_configured = (
            settings.dataset in (None, spec.dataset)
            and (dataset and dataset.split) in (None, spec.split)
            and settings.view in (None, gallery.any.view)
        )
        size = int(spec.rows["n_images"])
        return (not gallery.stores, not is_configured, -len(gallery.stores), -size, gallery.id)


def _gallery_id(store: Store) -> str:
    """Return a readable id that changes with the rows and the view."""
    spec = store.spec
    words = [spec.dataset, spec.split, store.view, protocol(store) or ""]
    readable = "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", word) for word in words if word)
    return f"{readable}-{digest([*words, spec.view, spec.rows['sha256']])[:8]}"


def _identity(path: Path) -> Identity:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns
