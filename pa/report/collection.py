"""Read and check every result of a workspace; nothing is computed again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pa.data.store.find import check_workspace, checksums
from pa.data.store.reader import SPEC, Store
from pa.errors import PaError
from pa.evaluate.results import ResultFile, RetrievalResult, check_stores, read_result
from pa.report import queries


@dataclass(frozen=True)
class DamagedFile:
    """A file that cannot be used: its path and why."""

    path: Path
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"file": as_text(self.path), "reason": self.reason}


@dataclass(frozen=True, eq=False)
class ResultCollection:
    """The results of a workspace.

    `fingerprints` are those of the stores that exist, `queries` the state of the table with the
    scores of a result's queries, by the path of the result.
    """

    root: Path
    results: tuple[ResultFile, ...]
    fingerprints: frozenset[str]
    damaged: tuple[DamagedFile, ...]
    queries: Mapping[Path, queries.State]

    def relative(self, path: Path) -> str:
        """Return a path as the report writes it."""
        try:
            return as_text(path.relative_to(self.root))
        except ValueError:
            return as_text(path)


def collect_results(root: Path, results: Path, features: Path) -> ResultCollection:
    """Read every result and compare it with the stores that exist.

    Files that cannot be read are listed in `damaged`. Raises `MissingError` without a workspace.
    """
    check_workspace(root)
    files: list[ResultFile] = []
    damaged: list[DamagedFile] = []
    states: dict[Path, queries.State] = {}
    stores = checksums(features)
    for path in sorted(results.glob("*/*.json")):
        try:
            file = read_result(path)
            check_stores(file, stores)
        except (PaError, OSError, UnicodeDecodeError, RecursionError) as error:
            text = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")
            damaged.append(DamagedFile(path, text))
            continue
        files.append(file)
        if isinstance(file.result, RetrievalResult):
            states[path], reason = queries.check(file)
            if reason is not None:
                damaged.append(DamagedFile(queries.table_of(path), reason))
    fingerprints = set()
    for path in sorted(features.glob(f"*/*/*/*/*/{SPEC}")):
        try:
            fingerprints.add(Store.open(path.parent, incomplete=True).fingerprint)
        except (PaError, OSError) as error:
            damaged.append(DamagedFile(path, str(error).removeprefix(f"{path}: ")))
    return ResultCollection(root, tuple(files), frozenset(fingerprints), tuple(damaged), states)


def as_text(path: Path) -> str:
    """Return a path as text; bytes of its names that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
