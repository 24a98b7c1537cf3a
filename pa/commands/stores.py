"""`pa status` and `pa verify`: what the stores of the workspace say of themselves, and repair."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data import shards
from pa.data.files import is_held, remove
from pa.data.pace import Pace, pace
from pa.data.spec import FINGERPRINT_SHOWN
from pa.data.store import LOCKS, MANIFEST, ROWS, SPEC, Store
from pa.data.stores import StoreQuery
from pa.data.verify import Problem, unreadable_spec, verify
from pa.errors import FingerprintError, MissingError, VerificationError

if TYPE_CHECKING:
    from pa.index.stored import IndexInfo

# -- pa status --------------------------------------------------------------------------------


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
    pace: Pace | None = None
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
        }


def status(config: Config, query: StoreQuery | None = None) -> list[StoreStatus]:
    """The state of every store of the workspace that fits; reads files and writes none."""
    found = []
    for path, store, error in _opened(config, query or StoreQuery()):
        if store is None:
            found.append(StoreStatus(path, None, problem=str(error)))
            continue
        try:
            found.append(_status(store))
        except VerificationError as damage:
            found.append(StoreStatus(path, None, problem=str(damage)))
    return found


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
        pace=pace(store, in_work=bool(at_work)),
    )


def _bad_images(path: Path) -> int:
    """Bad images of a shard; one that cannot be read counts as none here: `pa verify` tells."""
    try:
        found = path.stat()
        return _read_bad_images(path, found.st_ino, found.st_size)
    except (OSError, VerificationError):
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


# -- pa verify --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """A store and what is wrong with it. `store` is None where its spec cannot be read."""

    path: Path
    store: Store | None
    problems: list[Problem]

    @property
    def is_complete(self) -> bool:
        return self.store is not None and self.store.is_complete

    @property
    def damage(self) -> list[Problem]:
        """What is wrong: in an unfinished store a shard that is not there yet is not."""
        return [p for p in self.problems if self.is_complete or p.what != "missing"]

    @property
    def command(self) -> str:
        """The command that makes what is missing or was removed."""
        if self.store is not None:
            return self.store.command
        encoder, view, split, dataset = (folder.name for folder in list(self.path.parents)[:4])
        return (
            f"pa extract --encoder {encoder.replace('--', '/')} --dataset {dataset} "
            f"--split {split} --view {view}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "store": str(self.path) if self.store is None else self.store.title,
            "path": str(self.path),
            "complete": self.is_complete,
            "problems": [str(problem) for problem in self.problems],
            "command": self.command,
        }


def check(config: Config, query: StoreQuery, *, full: bool) -> Iterator[Checked]:
    """Verify every store that fits, also one whose spec is damaged; see `pa.data.verify`."""
    for path, store, error in _opened(config, query):
        if store is None:
            assert error is not None
            yield Checked(path, None, [unreadable_spec(path, error)])
        else:
            yield Checked(path, store, list(verify(store, full=full)))


def check_indexes(config: Config, *, full: bool = True) -> Iterator[tuple[Path, str | None]]:
    """Look at every index of the workspace: its directory, and what is wrong or None.

    Sizes, and whether index.json is that of its place; with `full` checksums, and whether the
    files hold what index.json says.
    """
    for directory in sorted(config.indexes.glob("*/*/*")):
        if not directory.is_dir() or directory.name.endswith(".partial"):
            continue
        try:
            _check_index(config, directory, full)
            yield directory, None
        except (FingerprintError, MissingError) as error:
            yield directory, str(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # index.json is JSON with its fields, but these do not hold what they should.
            yield directory, f"index.json is not what was written ({type(error).__name__}: {error})"


def _check_index(config: Config, directory: Path, full: bool) -> None:
    from pa.index.stored import check_files, read_info

    info = read_info(directory)
    if info.key.directory(config.indexes) != directory:
        raise FingerprintError(
            f"{directory} is the index of something else: index.json says {info.fingerprint[:16]}, "
            f"{info.representation}, {info.factory}. Delete it; it is built again on first use."
        )
    check_files(directory, info, verify=full)
    if full:
        _check_against_store(config, directory, info)


def _check_against_store(config: Config, directory: Path, info: IndexInfo) -> None:
    """Raise `FingerprintError` where index.json does not fit its index and its store.

    Not where the store is gone, which is no damage, or where FAISS is not installed.
    """
    from pa.index.library import load_faiss
    from pa.index.stored import open_files

    try:
        load_faiss()
    except MissingError:
        return
    by_place = StoreQuery(fingerprint=info.fingerprint[:FINGERPRINT_SHOWN])
    for _, store, _ in _opened(config, by_place):
        if store is None:
            continue
        index = open_files(directory, info, store)
        n_ids = info.n if index.ids is None else len(index.ids)
        n_rows = info.n + info.n_bad + info.n_zero
        said = (info.fingerprint, info.store, info.n, info.n, info.dimension, n_rows)
        vectors, width = index.faiss_index.ntotal, index.faiss_index.d
        found = (store.fingerprint, store.title, vectors, n_ids, width, store.n_rows)
        if said != found:
            raise FingerprintError(
                f"{directory / 'index.json'} says (fingerprint, store, vectors, ids, width, rows) {said}, "
                f"found {found}. Delete {directory}; it is built again on first use."
            )


@dataclass(frozen=True)
class Removed:
    """Something bad that was removed, why, and the command that makes it again."""

    path: Path
    why: str
    command: str

    def to_json(self) -> dict[str, str]:
        return {"path": str(self.path), "why": self.why, "command": self.command}


def repair(
    checked: Iterable[Checked], indexes: Iterable[tuple[Path, str | None]]
) -> Iterator[Removed]:
    """Remove what `check` and `check_indexes` found to be bad, and nothing else.

    A manifest goes with the first shard that does: what is made again may differ in the last bits
    on another machine, and the manifest is then written anew. A spec or a table of rows goes with
    the other; shards that are good stay, and the same command takes them up.
    """
    for entry in checked:
        yield from _repair_store(entry)
    for directory, problem in indexes:
        if problem is not None:
            command = _index_command(directory)
            remove(directory)
            yield Removed(directory, problem, command)


def _repair_store(entry: Checked) -> Iterator[Removed]:
    """Manifest first, then spec and rows: a kill in between leaves an unfinished store."""
    damage = entry.damage
    if not damage:
        return
    why: dict[Path, str] = {entry.path / MANIFEST: "it speaks of what is no longer there"}
    if any(problem.part in ("spec", "rows") for problem in damage):
        why[entry.path / SPEC] = why[entry.path / ROWS] = "spec and rows are made together"
    for problem in damage:
        if problem.what != "missing":
            why[problem.file] = problem.what
    command = entry.command
    if entry.path / SPEC in why and entry.store is not None:
        command += f" --shard-rows {entry.store.shard_rows}"
    for path, reason in why.items():
        if path.exists():
            remove(path)
            yield Removed(path, reason, command)


def _index_command(directory: Path) -> str:
    from urllib.parse import unquote

    fingerprint, representation, factory = directory.parts[-3:]
    return (
        f"pa index build --store {fingerprint[:8]} --representation {representation} "
        f"--index {unquote(factory)}"
    )


# -- both -------------------------------------------------------------------------------------


def _opened(
    config: Config, query: StoreQuery
) -> Iterator[tuple[Path, Store | None, FingerprintError | None]]:
    """Every store that fits: its folder, and the store or the error that keeps it closed.

    One that cannot be opened is known by its place: dataset, split, view, encoder, fingerprint.
    """
    for spec in sorted(config.features.glob(f"*/*/*/*/*/{SPEC}")):
        try:
            store = Store.open(spec.parent, incomplete=True)
        except FingerprintError as error:
            if _fits_by_place(query, spec.parent):
                yield spec.parent, None, error
        except MissingError:
            continue  # deleted in this moment
        else:
            if query.matches(store):
                yield store.path, store, None


def _fits_by_place(query: StoreQuery, folder: Path) -> bool:
    dataset, split, view, encoder, fingerprint = folder.parts[-5:]
    return (
        query.dataset in (None, dataset)
        and query.split in (None, split)
        and query.view in (None, view)
        and query.encoder in (None, encoder.replace("--", "/"))
        and fingerprint.startswith((query.fingerprint or "")[: len(fingerprint)])
    )
