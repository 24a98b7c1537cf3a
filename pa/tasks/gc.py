"""`pa gc`: what nothing in the workspace refers to any more, listed before it is deleted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data.files import PARTIAL_SUFFIX, is_abandoned, is_held, owner, remove
from pa.data.store.find import check_workspace, folders
from pa.data.store.reader import LOCKS, MANIFEST

# Beside <name>.json of a result: the heads, tables and figures of the same run.
RESULT_FILES = (".safetensors", ".parquet")
RUNNING = re.compile(r"running-.*\.safetensors|.*\.state")


@dataclass(frozen=True)
class Garbage:
    """Something that nothing refers to. What is not `deletable` is listed for a person to judge."""

    path: Path
    kind: str
    why: str
    bytes: int
    deletable: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "kind": self.kind,
            "why": self.why,
            "bytes": self.bytes,
            "deletable": self.deletable,
        }


def find_garbage(
    config: Config, *, unfinished: Sequence[str] = (), hosts: Sequence[str] = ()
) -> list[Garbage]:
    """List what nothing refers to. Reads names and sizes, and deletes nothing.

    - partial files and folders whose lock no process holds. Locks of other hosts may be invisible
      here: those are deletable where the shard's lock is free, or where `hosts` names the host;
    - locks that a killed process left in a complete store;
    - indexes of stores that are not there any more;
    - tables and heads of results whose JSON file is not there; the state of a training run that was
      not finished is kept: the same command goes on from it;
    - stores that are not complete, only where `unfinished` gives the beginning of their
      fingerprint (or of the folder's name, where the spec is gone);
    - empty folders.

    Raises `MissingError` where there is no workspace.
    """
    check_workspace(config.workspace)
    found = [
        *_partials(config, hosts),
        *_locks(config),
        *_indexes(config),
        *_results(config),
        *_unfinished(config, unfinished),
    ]
    gone = {entry.path for entry in found if entry.deletable}
    return [*found, *_empty(config, gone)]


def delete(found: Sequence[Garbage]) -> list[Garbage]:
    """Delete what is deletable; returns what is gone.

    A folder that was empty and is not any more, because somebody has begun to work there, stays.
    """
    for entry in found:
        if entry.deletable and entry.kind == "folder":
            with contextlib.suppress(OSError):
                entry.path.rmdir()
        elif entry.deletable and not is_held(entry.path):  # a writer may have begun since
            remove(entry.path)
    return [entry for entry in found if entry.deletable and not entry.path.exists()]


def _roots(config: Config) -> list[Path]:
    return [
        config.features,
        config.indexes,
        config.results,
        config.figures,
        config.checkpoints,
    ]


def _partials(config: Config, hosts: Sequence[str]) -> Iterator[Garbage]:
    for root in _roots(config):
        for path in sorted(root.rglob(f"*{PARTIAL_SUFFIX}")):
            writer = owner(path)
            if writer is None or any(
                parent.name.endswith(PARTIAL_SUFFIX) for parent in path.parents
            ):
                continue
            if is_held(path) or (writer.is_here and not is_abandoned(path)):
                continue
            if writer.is_here:
                dead, why = True, "no process holds its lock"
            elif writer.host in hosts:
                dead, why = True, f"of host {writer.host}, named by --host"
            else:
                dead, why = _is_free_shard(path, writer.name)
                why = why or f"its process runs, or ran, on {writer.host}: --host {writer.host}"
            yield Garbage(path, "partial", why, _size(path), dead)


def _is_free_shard(path: Path, name: str) -> tuple[bool, str]:
    """Whether a partial shard of another host is dead: its lock is there, and nobody holds it."""
    lock = path.parent / LOCKS / f"{name}.lock"
    if lock.exists() and not is_held(lock):
        return True, "nobody holds its lock"
    return False, ""


def _locks(config: Config) -> Iterator[Garbage]:
    for folder in sorted(config.features.glob(f"*/*/*/*/*/{LOCKS}")):
        held = any(is_held(lock) for lock in folder.iterdir())
        if (folder.parent / MANIFEST).exists() and not held:
            yield Garbage(folder, "locks", "its store is complete", _size(folder))


def _indexes(config: Config) -> Iterator[Garbage]:
    there = {folder.name for folder in folders(config.features)}
    for folder in sorted(config.indexes.glob("*")):
        if folder.is_dir() and folder.name not in there:
            yield Garbage(folder, "index", "its store is gone", _size(folder))


def _results(config: Config) -> Iterator[Garbage]:
    for path in sorted(config.results.glob("*/*")):
        if not path.is_file() or path.suffix not in RESULT_FILES:
            continue
        if RUNNING.fullmatch(path.name):
            continue
        names = [path.name[: match.start()] for match in re.finditer(r"\.", path.name)]
        if not any((path.parent / f"{name}.json").exists() for name in names):
            yield Garbage(path, "result", "its JSON file is gone", path.stat().st_size)


def _unfinished(config: Config, named: Sequence[str]) -> Iterator[Garbage]:
    for folder in sorted(config.features.glob("*/*/*/*/*")):
        if not folder.is_dir() or (folder / MANIFEST).exists():
            continue
        if not any(name and folder.name.startswith(name[: len(folder.name)]) for name in named):
            continue
        locks = folder / LOCKS
        if locks.is_dir() and any(is_held(lock) for lock in locks.iterdir()):
            why = "not complete, but a process is at work on it"
            yield Garbage(folder, "store", why, _size(folder), deletable=False)
        else:
            why = "not complete, named by --unfinished"
            yield Garbage(folder, "store", why, _size(folder))


def _empty(config: Config, gone: set[Path]) -> Iterator[Garbage]:
    """Folders that hold nothing, or nothing but what goes; the outermost of each."""
    empty: set[Path] = set()
    for root in _roots(config):
        folders = [path for path in root.rglob("*") if path.is_dir() and path not in gone]
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            inside = set(folder.iterdir())
            in_use = folder.name == LOCKS or any(parent in gone for parent in folder.parents)
            if not in_use and inside <= gone | empty:
                empty.add(folder)
    for folder in sorted(empty, key=lambda path: len(path.parts), reverse=True):
        yield Garbage(folder, "folder", "empty", 0)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
