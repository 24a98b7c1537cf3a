"""What the workspace has to look at: stores of the same regions, side by side.

A gallery is all stores of one table of regions, so that a row id means the same region in each. A
column is one representation of one store. Stores, their tables and their indexes stay open once
they were requested; what was made or replaced meanwhile is noticed by the files' identity.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pa.config import Config
from pa.data.store.find import protocol
from pa.data.store.reader import SPEC, Store
from pa.data.store.spec import digest
from pa.errors import MissingError, PaError, UnknownNameError
from pa.explore.browsing import Browser
from pa.explore.neighbour_shares import NeighbourShares

if TYPE_CHECKING:
    from pa.index.stored import Index


@dataclass(frozen=True)
class Column:
    """One representation of one store, and so one index."""

    store: Store
    representation: str

    @property
    def id(self) -> str:
        return f"{self.store.spec.short}.{self.representation}"


class Gallery:
    """Stores of the same regions. `stores` are complete, `unfinished` are not yet."""

    def __init__(self, id: str, stores: list[Store], unfinished: list[Store]) -> None:
        self.id = id
        self.stores = stores
        self.unfinished = unfinished
        for store in stores[1:]:
            store.share_rows(stores[0])

    @property
    def any(self) -> Store:
        """A store for what is the same in all: rows, boxes, pictures."""
        return (self.stores or self.unfinished)[0]

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns of the complete stores by id, encoders in the order of their names."""
        return {
            column.id: column
            for store in self.stores
            for name in vector_names(store)
            for column in [Column(store, name)]
        }

    @cached_property
    def browser(self) -> Browser:
        return Browser(self.any)

    @cached_property
    def shares(self) -> NeighbourShares:
        return NeighbourShares(self.any)

    def column(self, id: str) -> Column:
        if id not in self.columns:
            raise UnknownNameError("column", id, self.columns)
        return self.columns[id]


def vector_names(store: Store) -> list[str]:
    """The representations that can be searched: one vector per region."""
    return [name for name, shape in store.spec.representations.items() if len(shape) == 1]


class OpenStores:
    """The galleries of a workspace, and the open indexes of their columns."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._stores: dict[Path, tuple[tuple[int, int], Store]] = {}
        self._galleries: dict[str, Gallery] = {}
        self._indexes: dict[str, tuple[tuple[int, int], Index]] = {}

    def all(self) -> tuple[list[Gallery], list[str]]:
        """Every gallery, that of the settings first and then the largest; and what is damaged."""
        with self._lock:
            found, faults = self._find_stores()
            self._galleries = dict(self._group(found))
            return sorted(self._galleries.values(), key=self._rank), faults

    def get(self, id: str) -> Gallery:
        """Raises `UnknownNameError` where no stores make up such a gallery."""
        gallery = self._galleries.get(id)
        if gallery is None:
            self.all()
            gallery = self._galleries.get(id)
        if gallery is None:
            raise UnknownNameError("gallery", id, self._galleries)
        return gallery

    def index(self, column: Column) -> Index:
        """The open index of a column, memory-mapped.

        Raises `MissingError` with the command that builds it, and what `open_index` raises.
        """
        from pa.index.stored import INFO, open_index

        file = self.index_directory(column) / INFO
        try:
            identity = _identity(file)
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
        from pa.index.stored import INFO

        return (self.index_directory(column) / INFO).is_file()

    def index_directory(self, column: Column) -> Path:
        from pa.index.stored import IndexKey

        key = IndexKey(column.store.fingerprint, column.representation)
        return key.directory(self.config.indexes)

    def index_command(self, column: Column) -> str:
        """The command that builds the index of a column, and what else its store has none of."""
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

    # -- finding -------------------------------------------------------------------------------

    def _find_stores(self) -> tuple[list[Store], list[str]]:
        found, faults, seen = [], [], set()
        for spec in sorted(self.config.features.glob(f"*/*/*/*/*/{SPEC}")):
            try:
                identity = _identity(spec)
                known = self._stores.get(spec)
                if known is None or known[0] != identity:
                    opened = Store.open(spec.parent, incomplete=True)
                    known = self._stores[spec] = (identity, opened)
                store = known[1]
                if vector_names(store):
                    _key(store)
                    found.append(store)
                seen.add(spec)
            except (PaError, OSError) as error:
                faults.append(str(error))
        for gone in set(self._stores) - seen:
            del self._stores[gone]
        return found, faults

    def _group(self, stores: list[Store]) -> Iterator[tuple[str, Gallery]]:
        groups: dict[str, list[Store]] = {}
        for store in stores:
            groups.setdefault(_key(store), []).append(store)
        for id, members in groups.items():
            complete = [store for store in members if store.is_complete]
            unfinished = [store for store in members if not store.is_complete]
            known = self._galleries.get(id)
            same = known is not None and (known.stores, known.unfinished) == (complete, unfinished)
            yield id, known if known is not None and same else Gallery(id, complete, unfinished)

    def _rank(self, gallery: Gallery) -> tuple[object, ...]:
        settings, spec = self.config.settings, gallery.any.spec
        entry = settings.datasets.get(spec.dataset)
        fits = [
            options in (None, found)
            for options, found in (
                (settings.dataset, spec.dataset),
                (entry and entry.split, spec.split),
                (settings.view, gallery.any.view),
            )
        ]
        size = int(spec.rows["n_images"])
        return (not gallery.stores, not all(fits), -len(gallery.stores), -size, gallery.id)


def _key(store: Store) -> str:
    """The id of a store's gallery: readable, and other for other rows or another view."""
    spec = store.spec
    words = [spec.dataset, spec.split, store.view, protocol(store) or ""]
    readable = "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", word) for word in words if word)
    return f"{readable}-{digest([*words, spec.view, spec.rows['sha256']])[:8]}"


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns
