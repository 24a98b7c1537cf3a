"""The progress of every store of a workspace, from its files alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pa.data.files import is_held
from pa.data.store import shards
from pa.data.store.find import (
    StoreSelector,
    check_workspace,
    describe_missing,
    opened,
)
from pa.data.store.reader import LOCKS, Store
from pa.data.store.throughput import Throughput, store_throughput
from pa.errors import MissingError, NewerFormatError, PaError, VerificationError
from pa.workspace import Workspace


@dataclass(frozen=True)
class StoreStatus:
    """The progress of a store.

    `bad_images` counts those of the finished shards; `throughput` is None if it is unknown.
    `problem` is the reason why a store cannot be read; all other fields are then zero or None.
    """

    path: Path
    store: Store | None
    shards: int = 0
    shards_done: int = 0  # finished files
    shards_in_work: int = 0  # their locks are held
    rows_done: int = 0
    bad_images: int | None = None
    bytes: int = 0  # of all files in the folder
    throughput: Throughput | None = None
    problem: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.store is not None and self.store.is_complete

    @property
    def seconds_left(self) -> float | None:
        """Time to completion; None without an active writer or a known throughput."""
        if self.store is None or self.is_complete or not self.shards_in_work:
            return None
        if self.throughput is None:
            return None
        return (self.store.n_rows - self.rows_done) / self.throughput.rows_per_second

    def to_json(self) -> dict[str, Any]:
        if self.store is None:
            return {"path": str(self.path), "problem": self.problem}
        store, left = self.store, self.seconds_left
        return {
            "store": store.title,
            "path": str(store.path),
            "fingerprint": store.fingerprint,
            "rows": store.n_rows,
            "rows_done": self.rows_done,
            "shards": self.shards,
            "shards_done": self.shards_done,
            "shards_in_work": self.shards_in_work,
            "shards_missing": self.shards - self.shards_done - self.shards_in_work,
            "complete": self.is_complete,
            "bad_images": self.bad_images,
            "bytes": self.bytes,
            "rows_per_second": self.throughput and self.throughput.rows_per_second,
            "rows_per_second_from": self.throughput and self.throughput.source,
            "seconds_left": left,
            "expected_end": None if left is None else time.time() + left,
            "representations": store.spec.representations,
            "limit": store.spec.limit,
            "views": store.spec.view.get("views"),
            "storage": store.spec.precision["storage"],
        }


def status(
    workspace: Workspace, selector: StoreSelector | None = None, *, required: bool = False
) -> list[StoreStatus]:
    """Return the progress of every store that fits; read files and write none.

    Raise `MissingError` if the workspace does not exist; with `required`, also if no store fits a
    selector that names something.
    """
    check_workspace(workspace.path)
    entries = []
    for path, store, error in open_stores(workspace, selector, required=required):
        try:
            entries.append(
                StoreStatus(path, None, problem=str(error)) if store is None else _status(store)
            )
        except VerificationError as damage:
            entries.append(StoreStatus(path, None, problem=str(damage)))
    return entries


def _status(store: Store) -> StoreStatus:
    missing = store.missing()
    in_work = [s for s in missing if is_held(store.path / LOCKS / f"{s.name}.lock")]
    missing_numbers = {shard.index for shard in missing}
    done = [shard for shard in store.plan if shard.index not in missing_numbers]
    n_bad = len(store.bad) if store.is_complete else 0
    if not store.is_complete:
        for path in map(store.shard_path, done):
            # A damaged shard counts none here; `pa verify` reports it.
            with contextlib.suppress(OSError, VerificationError, NewerFormatError):
                status = path.stat()
                n_bad += _bad_images(path, status.st_ino, status.st_size)
    return StoreStatus(
        path=store.path,
        store=store,
        shards=len(store.plan),
        shards_done=len(done),
        shards_in_work=len(in_work),
        rows_done=sum(shard.n_rows for shard in done),
        bad_images=n_bad,
        bytes=size_of(store.path),
        throughput=store_throughput(store, in_work=bool(in_work)),
    )


@lru_cache(maxsize=100_000)  # more shards than any store
def _bad_images(path: Path, inode: int, size: int) -> int:
    """Cached for `pa status --watch`: a shard never changes under its name."""
    return len(shards.read_info(path).bad)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder, where writers may be active."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a writer has renamed or removed it
            total += file.stat().st_size if file.is_file() else 0
    return total


def open_stores(
    workspace: Workspace, selector: StoreSelector | None = None, *, required: bool = False
) -> Iterator[tuple[Path, Store | None, PaError | None]]:
    """Yield every store that fits: its folder, and the store or the error of opening it.

    A store that cannot be opened is identified by the names of its folders. With `required`, raise
    `MissingError` if no store fits a selector that names something.
    """
    empty = True
    for folder, store in opened(workspace.config.features, selector):
        empty = False
        if isinstance(store, Store):
            yield folder, store, None
        else:
            yield folder, None, store
    if required and empty and selector is not None and str(selector):
        command = workspace.extract_command(selector)
        configured = {*workspace.settings.datasets, *workspace.settings.encoders}
        raise MissingError(
            describe_missing(workspace.config.features, selector, command, configured)
        )
