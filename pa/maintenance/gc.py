"""Garbage collection: find and delete unreferenced files of a workspace."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data.files import PARTIAL_SUFFIX, is_abandoned, is_held, owner, remove
from pa.data.store.find import check_workspace, folders
from pa.data.store.reader import LOCKS, MANIFEST
from pa.maintenance.status import size_of
from pa.workspace import Workspace

# Files of a run next to <name>.json of its result: heads and tables.
RESULT_FILES = (".safetensors", ".parquet")
_STORES = "*/*/*/*/*"  # below `features`: dataset, split, view, encoder, fingerprint
_PARTIALS = f"*{PARTIAL_SUFFIX}"
RUNNING = re.compile(r"running-.*\.safetensors|.*\.state")  # an unfinished training run


@dataclass(frozen=True)
class Garbage:
    """An unreferenced file or folder; not `deletable` if the user has to decide."""

    path: Path
    kind: str  # partial, locks, index, result, store or folder
    why: str
    bytes: int  # of all files below `path`
    deletable: bool = True

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def find_garbage(
    workspace: Workspace, *, unfinished: Sequence[str] = (), hosts: Sequence[str] = ()
) -> list[Garbage]:
    """List unreferenced files by names and sizes, and delete nothing.

    - partial files and folders whose lock no process holds. Locks of other hosts may be invisible
      here: their files are deletable if the lock of the shard is free, or `hosts` names the host;
    - locks that a killed process left in a complete store;
    - indexes of deleted stores;
    - tables and heads of results whose JSON file was deleted; the state of an unfinished training
      run is kept, because the same command resumes from it;
    - incomplete stores, only if `unfinished` holds the first digits of their fingerprint;
    - empty folders.

    Raise `MissingError` if the workspace does not exist.
    """
    check_workspace(workspace.path)
    config = workspace.config
    garbage = [*_partials(config, hosts), *_leftovers(config), *_unfinished(config, unfinished)]
    return [*garbage, *_empty(config, {entry.path for entry in garbage if entry.deletable})]


def delete(garbage: Sequence[Garbage]) -> list[Garbage]:
    """Delete deletable entries, and return those that were deleted.

    A folder that is no longer empty, because a writer became active, stays.
    """
    for entry in garbage:
        if entry.deletable and entry.kind == "folder":
            with contextlib.suppress(OSError):
                entry.path.rmdir()
        elif entry.deletable and not is_held(entry.path):  # a writer may be active by now
            remove(entry.path)
    return [entry for entry in garbage if entry.deletable and not entry.path.exists()]


def _roots(config: Config) -> list[Path]:
    return [config.features, config.indexes, config.results, config.figures, config.checkpoints]


def _partials(config: Config, hosts: Sequence[str]) -> Iterator[Garbage]:
    for path in (path for root in _roots(config) for path in sorted(root.rglob(_PARTIALS))):
        writer = owner(path)
        if writer is None or any(parent.match(_PARTIALS) for parent in path.parents):
            continue
        if is_held(path) or (writer.is_here and not is_abandoned(path)):
            continue
        if writer.is_here:
            dead, why = True, "no process holds its lock"
        elif writer.host in hosts:
            dead, why = True, f"of host {writer.host}, named by --host"
        else:
            lock = path.parent / LOCKS / f"{writer.name}.lock"
            dead = lock.exists() and not is_held(lock)
            why = f"its process runs, or ran, on {writer.host}: --host {writer.host}"
            why = "no process holds the lock of its shard" if dead else why
        yield Garbage(path, "partial", why, size_of(path), dead)


def _has_writer(locks: Path) -> bool:
    return locks.is_dir() and any(map(is_held, locks.iterdir()))


def _leftovers(config: Config) -> Iterator[Garbage]:
    """Yield what a finished or deleted owner left: locks, indexes, tables and heads."""
    for folder in sorted(config.features.glob(f"{_STORES}/{LOCKS}")):
        if (folder.parent / MANIFEST).exists() and not _has_writer(folder):
            yield Garbage(folder, "locks", "its store is complete", size_of(folder))
    stores = {folder.name for folder in folders(config.features)}
    for folder in sorted(config.indexes.glob("*")):
        if folder.is_dir() and folder.name not in stores:
            yield Garbage(folder, "index", "its store was deleted", size_of(folder))
    for path in sorted(config.results.glob("*/*")):
        if not path.is_file() or path.suffix not in RESULT_FILES or RUNNING.fullmatch(path.name):
            continue
        # The name of the result ends at one of the dots: `a.b-0123.curves.parquet`.
        names = [path.name[: match.start()] for match in re.finditer(r"\.", path.name)]
        if not any((path.parent / f"{name}.json").exists() for name in names):
            yield Garbage(path, "result", "its JSON file was deleted", path.stat().st_size)


def _unfinished(config: Config, named: Sequence[str]) -> Iterator[Garbage]:
    for folder in sorted(config.features.glob(_STORES)):
        if not folder.is_dir() or (folder / MANIFEST).exists():
            continue
        if not any(name and folder.name.startswith(name[: len(folder.name)]) for name in named):
            continue
        active = _has_writer(folder / LOCKS)
        why = "but a writer is active" if active else "named by --unfinished"
        size = size_of(folder)
        yield Garbage(folder, "store", f"not complete, {why}", size, deletable=not active)


def _empty(config: Config, garbage: set[Path]) -> Iterator[Garbage]:
    """Yield folders that contain only garbage, innermost first."""
    every = {path for root in _roots(config) for path in root.rglob("*") if path.is_dir()}
    empty: set[Path] = set()
    # Inner folders come first, so that a folder of empty folders is empty too.
    for folder in sorted(every - garbage, key=lambda path: (-len(path.parts), path)):
        in_use = folder.name == LOCKS or not garbage.isdisjoint(folder.parents)
        if not in_use and set(folder.iterdir()) <= garbage | empty:
            empty.add(folder)
            yield Garbage(folder, "folder", "empty", 0)
