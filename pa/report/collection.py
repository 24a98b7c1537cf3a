"""Read and check every result of a workspace; nothing is computed again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pa.data.store.find import check_workspace, checksums
from pa.data.store.reader import SPEC, Store
from pa.errors import PaError
from pa.evaluate.result_files import ResultFile, check_stores, read_result
from pa.evaluate.results import RetrievalResult

# State of the Parquet table with the score of each query, which a retrieval stores with its result.
QueryState = Literal["intact", "missing", "damaged", "not stored"]


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

    `fingerprints` are those of the stores that exist, `queries` the states of the query tables by
    the path of their result.
    """

    root: Path
    results: tuple[ResultFile, ...]
    fingerprints: frozenset[str]
    damaged: tuple[DamagedFile, ...]
    queries: Mapping[Path, QueryState]

    def relative(self, path: Path) -> str:
        """Return a path as the report writes it."""
        return as_text(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def collect_results(root: Path, results: Path, features: Path) -> ResultCollection:
    """Read every result and compare it with the stores that exist.

    Files that cannot be read are listed in `damaged`. Raises `MissingError` without a workspace.
    """
    check_workspace(root)
    files: list[ResultFile] = []
    damaged: list[DamagedFile] = []
    states: dict[Path, QueryState] = {}
    stores = checksums(features)
    for path in sorted(results.glob("*/*.json")):
        try:
            file = read_result(path)
            check_stores(file, stores)
        except (PaError, OSError, UnicodeDecodeError, RecursionError) as error:
            damaged.append(_damaged(path, error))
            continue
        files.append(file)
        if isinstance(file.result, RetrievalResult):
            states[path], reason = _query_state(file)
            if reason is not None:
                damaged.append(DamagedFile(query_table(path), reason))
    fingerprints = set()
    # A store that is still being filled exists, too.
    for path in sorted(features.glob(f"*/*/*/*/*/{SPEC}")):
        try:
            fingerprints.add(Store.open(path.parent, incomplete=True).fingerprint)
        except (PaError, OSError) as error:
            damaged.append(_damaged(path, error))
    return ResultCollection(root, tuple(files), frozenset(fingerprints), tuple(damaged), states)


def _damaged(path: Path, error: Exception) -> DamagedFile:
    # Formats print the path next to the reason.
    return DamagedFile(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "))


def query_table(result: Path) -> Path:
    """Return the path of the table with the scores of a result's queries."""
    return result.with_suffix(".parquet")


def _query_state(file: ResultFile) -> tuple[QueryState, str | None]:
    """Return the state of the query table of a retrieval, and what is wrong with it, or None."""
    table = query_table(file.path)
    if not table.exists():
        return "missing", None
    try:
        reason = file.companion_difference(table)
    except OSError as error:
        reason = f"it cannot be read ({error})"
    if reason is None:
        return "intact", None
    return "damaged", (
        f"{reason}. The result itself is intact, and claims use an unpaired interval. Score again "
        f"with `pa evaluate retrieval`, or remove all damaged files with `pa verify --repair`."
    )


def as_text(path: Path) -> str:
    """Return a path as text; bytes of its names that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
