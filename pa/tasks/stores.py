"""`pa status`: what the stores of the workspace say of themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data.files import is_held
from pa.data.store import shards
from pa.data.store.find import StoreSelector, check_workspace, describe_missing, folders
from pa.data.store.reader import LOCKS, Store
from pa.data.store.throughput import Throughput, store_throughput
from pa.errors import FingerprintError, MissingError, NewerFormatError, VerificationError
from pa.tasks.choose import extract_command


@dataclass(frozen=True)
class StoreStatus:
    """How far a store is, from its files alone.

    `bad_images` counts those of the shards that are done. `pace` is None where nothing tells it.
    `problem` says why a store cannot be read; all else is then zero or None.
    """

    path: Path
    store: Store | None
    shards: int = 0
    shards_done: int = 0
    shards_in_work: int = 0
    rows_done: int = 0
    bad_images: int | None = None
    bytes: int = 0
    pace: Throughput | None = None
    problem: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.store is not None and self.store.is_complete

    @property
    def seconds_left(self) -> float | None:
        """Until it is done at this pace; None where nobody is at work or the pace is unknown."""
        if self.store is None or self.is_complete or not self.shards_in_work or self.pace is None:
            return None
        return (self.store.n_rows - self.rows_done) / self.pace.rows_per_second

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
            "rows_per_second": self.pace and self.pace.rows_per_second,
            "rows_per_second_from": self.pace and self.pace.source,
            "seconds_left": left,
            "expected_end": None if left is None else time.time() + left,
            "representations": store.spec.representations,
            "limit": store.spec.limit,
            "views": store.spec.view.get("views"),
            "storage": store.spec.precision["storage"],
        }


def status(
    config: Config, query: StoreSelector | None = None, *, named: bool = False
) -> list[StoreStatus]:
    """The state of every store of the workspace that fits; reads files and writes none.

    `named` as of `opened`. Raises `MissingError` where there is no such workspace.
    """
    check_workspace(config.workspace)
    found = []
    for path, store, error in opened(config, query or StoreSelector(), named=named):
        if store is None:
            found.append(StoreStatus(path, None, problem=str(error)))
            continue
        try:
            found.append(_status(store))
        except VerificationError as damage:
            found.append(StoreStatus(path, None, problem=str(damage)))
    return found


def first_step(config: Config) -> str:
    """What to do in a workspace without stores."""
    command = f"Make one with:\n  {extract_command(config, StoreSelector())}"
    return "\n".join(filter(None, [command, config.without_file]))


def _status(store: Store) -> StoreStatus:
    missing = store.missing()
    at_work = [s for s in missing if is_held(store.path / LOCKS / f"{s.name}.lock")]
    not_there = {shard.index for shard in missing}
    done = [shard for shard in store.plan if shard.index not in not_there]
    if store.is_complete:
        bad = len(store.bad)
    else:
        bad = sum(_bad_images(store.shard_path(shard)) for shard in done)
    return StoreStatus(
        path=store.path,
        store=store,
        shards=len(store.plan),
        shards_done=len(done),
        shards_in_work=len(at_work),
        rows_done=sum(shard.n_rows for shard in done),
        bad_images=bad,
        bytes=_size(store.path),
        pace=store_throughput(store, in_work=bool(at_work)),
    )


def _bad_images(path: Path) -> int:
    """Bad images of a shard; one that cannot be read counts as none here: `pa verify` tells."""
    try:
        found = path.stat()
        return _read_bad_images(path, found.st_ino, found.st_size)
    except (OSError, VerificationError, NewerFormatError):
        return 0


@lru_cache(maxsize=100_000)
def _read_bad_images(path: Path, inode: int, size: int) -> int:
    """Kept for `pa status --watch`: a shard never changes under its name."""
    return len(shards.read_info(path).bad)


def _size(folder: Path) -> int:
    """Bytes below a folder in which others may be at work."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def opened(
    config: Config, query: StoreSelector, *, named: bool = False
) -> Iterator[tuple[Path, Store | None, FingerprintError | MissingError | None]]:
    """Every store that fits: its folder, and the store or the error that keeps it closed.

    One that cannot be opened is known by its place: dataset, split, view, encoder, fingerprint.
    With `named`, a query that asks for something and finds nothing is a `MissingError`.
    """
    found = False
    for folder in folders(config.features):
        try:
            store = Store.open(folder, incomplete=True)
        except (FingerprintError, MissingError) as error:
            if _fits_by_place(query, folder) and folder.exists():  # else deleted in this moment
                found = True
                yield folder, None, error
        else:
            if query.matches(store):
                found = True
                yield store.path, store, None
    if named and not found and str(query):
        command = extract_command(config, query)
        configured = {*config.settings.datasets, *config.settings.encoders}
        raise MissingError(describe_missing(config.features, query, command, configured))


def _fits_by_place(query: StoreSelector, folder: Path) -> bool:
    dataset, split, view, encoder, fingerprint = folder.parts[-5:]
    return (
        query.dataset in (None, dataset)
        and query.split in (None, split)
        and query.view in (None, view)
        and query.encoder in (None, encoder.replace("--", "/"))
        and fingerprint.startswith((query.fingerprint or "")[: len(fingerprint)])
    )
