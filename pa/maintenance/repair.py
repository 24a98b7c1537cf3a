"""Remove files that verification found damaged, so that their commands can recreate them."""

from __future__ import annotations

import glob
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pa.data.files import remove
from pa.data.store.reader import MANIFEST, ROWS, SPEC
from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.maintenance.verify import StoreCheck, Verification
from pa.workspace import Workspace


@dataclass(frozen=True)
class Removed:
    """A removed file or folder, the reason, and the command that recreates it."""

    path: Path
    why: str
    command: str

    def to_json(self) -> dict[str, str]:
        return {**asdict(self), "path": str(self.path)}


def repair(workspace: Workspace, verification: Verification) -> list[Removed]:
    """Remove damaged files and files derived from them, and nothing else.

    The manifest of a store is removed with its first damaged shard: a recreated shard may differ in
    the last bits on another machine, so the manifest must be rewritten. Spec and table of rows are
    removed together; good shards stay, and the same command keeps them. A store without its spec
    stays unchanged, as do all files of a newer version of pa.
    """
    removed = [entry for check in verification.stores for entry in _repair_store(check)]
    removed += [_remove_index(c.path, c.damage) for c in verification.indexes if c.damage]
    for check in verification.results:
        if check.damage:
            removed += _remove_result(check.path, check.damage)
    return [*removed, *_remove_derived(workspace, verification.stores)]


def _repair_store(check: StoreCheck) -> Iterator[Removed]:
    """Remove the manifest first, then spec and rows: if killed, the store is incomplete."""
    damage = check.damage
    if not damage or check.newer or check.lacks_spec:
        return
    # In the order of removal.
    why: dict[Path, str] = {check.path / MANIFEST: "it lists files that were removed"}
    if any(issue.part in ("spec", "rows") for issue in damage):
        why[check.path / SPEC] = why[check.path / ROWS] = "spec and rows are written together"
    for issue in damage:
        if issue.what != "missing":
            why[issue.file] = issue.what
    command = check.command
    if check.path / SPEC in why and check.store is not None:
        command += f" --shard-rows {check.store.shard_rows}"
    for path, reason in why.items():
        if path.exists():
            remove(path)
            yield Removed(path, reason, command)


def _remove_index(directory: Path, why: str) -> Removed:
    fingerprint, representation, factory = directory.parts[-3:]  # names of the folders
    remove(directory)  # files and index.json
    return Removed(
        directory,
        why,
        f"pa index build --store {fingerprint[:8]} --representation {representation} "
        f"--index {unquote(factory)}",
    )


def _remove_result(path: Path, why: str) -> Iterator[Removed]:
    """Remove a result with all its files, the JSON first: it is useless without the others."""
    from pa.evaluate.result_files import companion_files

    # Read before its file is removed.
    command = _result_command(path)
    for file in (path, *companion_files(path)):
        remove(file)
        yield Removed(file, why, command)


def _remove_derived(workspace: Workspace, checks: list[StoreCheck]) -> Iterator[Removed]:
    """Remove indexes, results and figures of features that will be encoded again.

    The new features may differ in the last bits.
    """
    config = workspace.config
    lost = {
        check.path.name: check
        for check in checks
        if not (check.newer or check.lacks_spec)
        and any(issue.part != "manifest" for issue in check.damage)
    }
    if not lost:
        return
    why = "made from {}, whose features will be encoded again".format
    for directory in sorted(config.indexes.glob("*/*/*")):
        if directory.parts[-3] in lost and directory.is_dir():
            yield _remove_index(directory, why(lost[directory.parts[-3]].path))
    for path in sorted(config.results.glob("*/*.json")):
        if (store := _made_from(path, lost)) is not None:
            yield from _remove_result(path, why(store.path))
    for path in sorted(config.figures.rglob("*.json")):
        if (store := _made_from(path, lost)) is not None:
            command = str(_fields(path).get("command", "pa figure"))
            for file in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")):
                remove(file)
                yield Removed(file, why(store.path), command)


def _made_from(path: Path, stores: Mapping[str, StoreCheck]) -> StoreCheck | None:
    """Return the entry of `stores`, by the start of its fingerprint, that a JSON file names."""
    stores_field = _fields(path).get("stores")
    listed = stores_field.values() if isinstance(stores_field, dict) else stores_field or ()
    for store in listed:
        if isinstance(store, dict):
            check = stores.get(str(store.get("fingerprint"))[:FINGERPRINT_SHOWN])
            if check is not None:
                return check
    return None


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _result_command(path: Path) -> str:
    """Return the command of a result as far as its folder and its JSON reveal it."""
    group, _, rest = path.parent.name.removesuffix("-difference").partition("-")
    # results/probe-fewshot is written by `pa probe linear --shots`.
    is_few_shot = rest == "fewshot"
    words = ["pa", "evaluate", group]
    if group == "probe":
        words = ["pa", "probe", "linear" if is_few_shot else rest]
    stores = _fields(path).get("stores")
    first = next(iter(stores.values()), None) if isinstance(stores, dict) else None
    if isinstance(first, dict):
        words += ["--encoder", str(first.get("encoder")), "--dataset", str(first.get("dataset"))]
    return shlex.join([*words, *(["--shots", "1,5,10"] if is_few_shot else [])])
