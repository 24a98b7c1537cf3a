"""The result files and stores of a workspace, read and checked; nothing is recomputed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pa.data.store.find import check_workspace, checksums
from pa.data.store.reader import SPEC, Store
from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.errors import MismatchError, PaError
from pa.evaluate.results import check_stores, read_result
from pa.report import queries

# Tasks that the paper's tables are about.
RETRIEVAL, LINEAR, ATTENTIVE = "retrieval", "probe-linear", "probe-attentive"
SEGMENTATION = "probe-segmentation"
TASKS = (RETRIEVAL, LINEAR, ATTENTIVE, SEGMENTATION)

WITHOUT_QUERIES = (
    "Its result stands, and claims take an interval without pairs; score again with `pa evaluate "
    "retrieval`, or take all that is bad away with `pa verify --repair`."
)


@dataclass(frozen=True)
class Damaged:
    """A file that says nothing: its path and why."""

    path: Path
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"file": as_text(self.path), "reason": self.reason}


@dataclass(frozen=True, eq=False)
class Found:
    """One result file: its content, when it was written (UTC), and what became of the scores of
    its queries, which part retrieval keeps beside it."""

    path: Path
    fields: dict[str, Any]
    written: datetime
    queries: queries.State = "none kept"

    @property
    def task(self) -> str:
        return str(self.fields.get("task", "of no task"))

    @property
    def protocol(self) -> dict[str, Any]:
        return dict(self.fields["protocol"])

    def store(self, role: str) -> dict[str, Any]:
        """What the result says of the store of a role; empty where it had none."""
        return dict(self.fields["stores"].get(role, {}))

    @property
    def tested(self) -> dict[str, Any]:
        """The store whose rows the scores are of."""
        return self.store("gallery") or self.store("test")


@dataclass(frozen=True, eq=False)
class Workspace:
    """What a workspace holds: results, the specs of its stores by fingerprint, and what is damaged.

    A spec is `Spec.to_json()`: encoder, view, transform, rows, limit.
    """

    root: Path
    results: tuple[Found, ...]
    specs: Mapping[str, dict[str, Any]]
    damaged: tuple[Damaged, ...]

    def spec(self, store: Mapping[str, Any]) -> dict[str, Any] | None:
        """The spec of a store that a result names: from the result itself, else from the store;
        None where the result is of an older version and the store is gone."""
        if isinstance(own := store.get("spec"), dict):
            return {"dataset": store.get("dataset"), "split": store.get("split"), **own}
        return self.specs.get(str(store.get("fingerprint")))

    def relative(self, path: Path) -> str:
        """A path as it is written in the report."""
        try:
            return as_text(path.relative_to(self.root))
        except ValueError:
            return as_text(path)


def read_workspace(root: Path, results: Path, features: Path) -> Workspace:
    """Read every result and every store's spec.

    Raises `MissingError` where there is no workspace. What cannot be read is listed in `damaged`.
    """
    check_workspace(root)
    found, damaged = _read_results(results, checksums(features))
    specs, broken = _read_specs(features)
    return Workspace(root, tuple(found), specs, (*damaged, *broken))


def _read_results(results: Path, stores: Mapping[str, str]) -> tuple[list[Found], list[Damaged]]:
    found, damaged = [], []
    for path in sorted(results.glob("*/*.json")):
        try:
            fields = read_result(path)
            check(fields)
            check_stores(path, fields, stores)
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (PaError, OSError, UnicodeDecodeError, RecursionError) as error:
            text = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")
            damaged.append(Damaged(path, text))
            continue
        state, reason = _queries_of(path, fields)
        found.append(Found(path, fields, written, state))
        if reason is not None:
            damaged.append(Damaged(queries.table_of(path), f"{reason}. {WITHOUT_QUERIES}"))
    return found, damaged


def _queries_of(path: Path, fields: dict[str, Any]) -> tuple[queries.State, str | None]:
    """What became of the scores of a result's queries, and what is wrong with them."""
    if fields.get("task") != RETRIEVAL:
        return "none kept", None
    table = queries.table_of(path)
    if not table.exists():
        return "gone", None
    reason = queries.damage(table, fields)
    return ("there", None) if reason is None else ("damaged", reason)


def _read_specs(features: Path) -> tuple[dict[str, dict[str, Any]], list[Damaged]]:
    specs, damaged = {}, []
    for path in sorted(features.glob(f"*/*/*/*/*/{SPEC}")):
        try:
            store = Store.open(path.parent, incomplete=True)
        except (PaError, OSError) as error:
            damaged.append(Damaged(path, str(error).removeprefix(f"{path}: ")))
            continue
        specs[store.fingerprint] = store.spec.to_json()
    return specs, damaged


_OBJECTS = ("protocol", "stores", "selection", "counts", "scores", "versions")


def check(fields: Mapping[str, Any]) -> None:
    """Raise `MismatchError` where a result lacks a part that this report reads, or holds a score
    that is none."""
    for name in ("task", "representation", "digest"):
        if not isinstance(fields.get(name), str):
            raise MismatchError(_wrong(name, "a text", fields.get(name)))
    for name in _OBJECTS:
        if not isinstance(fields.get(name), dict):
            raise MismatchError(_wrong(name, "an object", fields.get(name)))
    if not isinstance(fields["protocol"].get("changed", {}), dict):
        raise MismatchError(_wrong("protocol.changed", "an object", fields["protocol"]["changed"]))
    for role, store in fields["stores"].items():
        if not isinstance(store, dict) or not isinstance(store.get("fingerprint"), str):
            raise MismatchError(_wrong(f"stores.{role}", "a store with its fingerprint", store))
    for name, score in fields["scores"].items():
        _check_score(f"scores.{name}", score)


def _check_score(name: str, score: Any) -> None:
    if not isinstance(score, dict) or not is_number(score.get("value")):
        raise MismatchError(_wrong(name, "a score with a finite value", score))
    if not -1 <= score["value"] <= 1:
        raise MismatchError(_wrong(f"{name}.value", "a fraction of 1", score["value"]))
    interval = score.get("interval")
    fits = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    if interval is not None and not (fits and interval[0] <= interval[1]):
        raise MismatchError(_wrong(f"{name}.interval", "two numbers in order, or null", interval))
    for field in ("n", "n_images", "n_groups"):
        count = score.get(field)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise MismatchError(_wrong(f"{name}.{field}", "a whole number", count))


def as_text(path: Path) -> str:
    """A path as text: bytes of its names that are no UTF-8 stand as their codes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, expected: str, value: Any) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:39] + "…"
    return (
        f"{name} is {shown}, expected {expected}. Run the command that made it again, or delete "
        f"the file."
    )


def short(fingerprint: str) -> str:
    """A fingerprint as it is shown, and as the store's directory is named."""
    return fingerprint[:FINGERPRINT_SHOWN]
