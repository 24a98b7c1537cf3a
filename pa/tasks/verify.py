"""`pa verify`: read stores, indexes and results back; remove what is bad, to be made again."""

from __future__ import annotations

import glob
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.files import remove
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector, check_workspace
from pa.data.store.reader import MANIFEST, ROWS, SPEC, Store
from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.data.store.verify import Issue, unreadable_spec, verify
from pa.errors import FingerprintError, MissingError, NewerFormatError, PaError
from pa.tasks.stores import opened

if TYPE_CHECKING:
    from pa.index.stored import IndexInfo


@dataclass(frozen=True)
class Checked:
    """A store and what is wrong with it. `store` is None where its spec cannot be read."""

    path: Path
    store: Store | None
    problems: list[Issue]

    @property
    def is_complete(self) -> bool:
        return self.store is not None and self.store.is_complete

    @property
    def damage(self) -> list[Issue]:
        """What is wrong: a missing file is damage only where a manifest says it was there."""
        found = [p for p in self.problems if not p.newer]
        was_complete = (self.path / MANIFEST).exists()
        return [p for p in found if was_complete or p.what != "missing"]

    @property
    def lacks_spec(self) -> bool:
        """Whether spec.json is missing: `command` writes it and takes up the shards that are good.

        Nothing has to be removed for that.
        """
        return any(p.part == "spec" and p.what == "missing" for p in self.problems)

    @property
    def newer(self) -> list[Issue]:
        """What a newer version of pa wrote: not to be read by this one, and not to be removed."""
        return [p for p in self.problems if p.newer]

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
            "newer": bool(self.newer),
            "command": self.command,
        }


def check(config: Config, query: StoreSelector, *, full: bool) -> Iterator[Checked]:
    """Verify every store that fits, also one whose spec is damaged; see `pa.data.store.verify`.

    Raises `MissingError` where there is no workspace, or no store that a query asks for.
    """
    check_workspace(config.workspace)
    for path, store, error in opened(config, query, named=True):
        if store is None:
            assert error is not None
            yield Checked(path, None, [unreadable_spec(path, error)])
        else:
            yield Checked(path, store, list(verify(store, full=full)))


@dataclass(frozen=True)
class Trouble:
    """What is wrong with an index or a result; `newer` as of `pa.data.store.verify.Issue`."""

    what: str
    newer: bool = False

    @classmethod
    def of(cls, error: Exception) -> Trouble:
        return cls(str(error), isinstance(error, NewerFormatError))

    def __str__(self) -> str:
        return self.what


Looked = tuple[Path, Trouble | None]  # a folder or a file, and what is wrong with it


def check_indexes(config: Config, *, full: bool = True) -> Iterator[Looked]:
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
            yield directory, Trouble.of(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # index.json is JSON with its fields, but these do not hold what they should.
            what = f"index.json is not what was written ({type(error).__name__}: {error})"
            yield directory, Trouble(what)


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
    from pa.index.stored import check_store, open_files

    try:
        load_faiss()
    except MissingError:
        return
    by_place = StoreSelector(fingerprint=info.fingerprint[:FINGERPRINT_SHOWN])
    for _, store, _ in opened(config, by_place):
        if store is None:
            continue
        if store.is_complete:
            check_store(info, store, directory)
        index = open_files(directory, info, store)
        n_ids = info.n if index.ids is None else len(index.ids)
        n_rows = info.n + info.n_bad + info.n_zero
        said = (info.fingerprint, info.store, info.n, info.n, info.dimension, n_rows)
        vectors, width = index.faiss_index.ntotal, index.faiss_index.d
        found = (store.fingerprint, store.title, vectors, n_ids, width, store.n_rows)
        if said != found:
            raise FingerprintError(
                f"{directory / 'index.json'} says (fingerprint, store, vectors, ids, width, rows) "
                f"{said}, found {found}. Delete {directory}; it is built again on first use."
            )


def check_results(config: Config, *, full: bool = True) -> Iterator[Looked]:
    """Look at every result of the workspace: its JSON file, and what is wrong or None.

    Its place and its own checksum, the sizes of its tables and heads, and with `full` their
    checksums. A result whose store was deleted is good; one whose store has other features now is
    damaged.
    """
    from pa.evaluate.results import check_stores, difference, read_result

    checksums = stores.checksums(config.features)
    for path in sorted(config.results.glob("*/*.json")):
        try:
            fields = read_result(path)
            check_stores(path, fields, checksums)
            what = difference(path, fields, full=full)
            yield path, None if what is None else Trouble(what)
        except (PaError, OSError) as error:
            yield path, Trouble.of(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            yield path, Trouble(f"it is not what was written ({type(error).__name__}: {error})")


def is_damaged(checked: Iterable[Checked], others: Iterable[Looked]) -> bool:
    """Whether anything is bad, of stores or of indexes and results."""
    of_others = any(found is not None and not found.newer for _, found in others)
    return of_others or any(entry.damage for entry in checked)


def newer_paths(checked: Iterable[Checked], others: Iterable[Looked]) -> list[Path]:
    """The stores, indexes and results that a newer version of pa wrote."""
    stores = [entry.path for entry in checked if entry.newer]
    return stores + [path for path, found in others if found is not None and found.newer]


@dataclass(frozen=True)
class Removed:
    """Something bad that was removed, why, and the command that makes it again."""

    path: Path
    why: str
    command: str

    def to_json(self) -> dict[str, str]:
        return {"path": str(self.path), "why": self.why, "command": self.command}


def repair(
    checked: Iterable[Checked],
    indexes: Iterable[Looked],
    results: Iterable[Looked] = (),
) -> Iterator[Removed]:
    """Remove what `check`, `check_indexes` and `check_results` found to be bad, and nothing else.

    A manifest goes with the first shard that does: what is made again may differ in the last bits
    on another machine, and the manifest is then written anew. A spec or a table of rows goes with
    the other; shards that are good stay, and the same command takes them up. A store
    without its spec stays as it is. What a newer version wrote stays, with all of its store.
    """
    for entry in checked:
        yield from _repair_store(entry)
    for directory, problem in indexes:
        if problem is not None and not problem.newer:
            command = _index_command(directory)
            remove(directory)
            yield Removed(directory, problem.what, command)
    for path, problem in results:
        if problem is not None and not problem.newer:
            yield from _repair_result(path, problem.what)


def _repair_result(path: Path, problem: str) -> Iterator[Removed]:
    """A result goes with all its files, the JSON first: none is of use without the others."""
    from pa.evaluate.results import companion_files

    command = _result_command(path)
    for file in (path, *companion_files(path)):
        remove(file)
        yield Removed(file, problem, command)


def remove_derived(config: Config, checked: Iterable[Checked]) -> Iterator[Removed]:
    """Remove indexes, results and figures made from features that will be encoded again.

    The new features may differ in the last bits.
    """
    stores = {entry.path.name: entry for entry in checked if _lost_features(entry)}
    if not stores:
        return
    why = "made from {}, whose features will be encoded again".format
    for directory in sorted(config.indexes.glob("*/*/*")):
        if directory.parts[-3] in stores and directory.is_dir():
            command = _index_command(directory)
            remove(directory)
            yield Removed(directory, why(stores[directory.parts[-3]].path), command)
    for path in sorted(config.results.glob("*/*.json")):
        if (entry := _made_from(path, stores)) is not None:
            yield from _repair_result(path, why(entry.path))
    for path in sorted(config.figures.rglob("*.json")):
        if (entry := _made_from(path, stores)) is not None:
            command = str(_fields(path).get("command", "pa figure"))
            for file in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")):
                remove(file)
                yield Removed(file, why(entry.path), command)


def _lost_features(entry: Checked) -> bool:
    """Whether features of a store will be encoded again, by what `_repair_store` removes."""
    if entry.newer or entry.lacks_spec:
        return False
    return any(problem.part != "manifest" for problem in entry.damage)


def _made_from(path: Path, stores: Mapping[str, Checked]) -> Checked | None:
    """Return the entry of `stores`, by start of fingerprint, that a JSON file names."""
    named = _fields(path).get("stores")
    listed = named.values() if isinstance(named, dict) else named or ()
    for store in listed:
        if isinstance(store, dict):
            entry = stores.get(str(store.get("fingerprint"))[:FINGERPRINT_SHOWN])
            if entry is not None:
                return entry
    return None


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _result_command(path: Path) -> str:
    """The command that makes a result again, as far as the result says it."""
    group, _, rest = path.parent.name.removesuffix("-difference").partition("-")
    few = rest == "fewshot"
    words = (
        ["pa", "probe", "linear" if few else rest]
        if group == "probe"
        else ["pa", "evaluate", group]
    )
    stores = _fields(path).get("stores")
    first = next(iter(stores.values()), None) if isinstance(stores, dict) else None
    if isinstance(first, dict):
        words += ["--encoder", str(first.get("encoder")), "--dataset", str(first.get("dataset"))]
    return shlex.join([*words, *(["--shots", "1,5,10"] if few else [])])


def _repair_store(entry: Checked) -> Iterator[Removed]:
    """Manifest first, then spec and rows: a kill in between leaves an unfinished store."""
    damage = entry.damage
    if not damage or entry.newer or entry.lacks_spec:
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
