"""Result files: one JSON per run, which says what was measured, on what, and how.

`results/<task>/<name>.json`. The name ends in a digest of everything that determines the content
(protocol, stores, representation, selection), so the same run replaces its own file and no other.
Versions, times and scores are recorded and not part of the digest.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pa
from pa.data.files import PARTIAL_SUFFIX, write_json
from pa.data.store import checksums
from pa.data.store.source import FeatureSource
from pa.data.store.spec import digest
from pa.errors import (
    FingerprintError,
    MismatchError,
    MissingError,
    NewerFormatError,
    VerificationError,
    is_newer,
)

RESULT_FORMAT = 2
DIGEST_SHOWN = 12
VERSIONED = ("torch", "numpy")
# What a result's name matches and is not a file of it: the JSON itself, and files of work.
NOT_COMPANIONS = (".json", ".state", PARTIAL_SUFFIX)


@dataclass(frozen=True)
class Result:
    """One run's result.

    What determines it: `task`, `protocol` (every field of the recipe), `stores` (role, for
    instance "train", → `describe_store`), `representation`, `selection` (which rows). What came
    out: `counts`, `scores` (name → fields), `details` and `seconds` (stage → time).
    """

    task: str
    protocol: dict[str, Any]
    stores: dict[str, dict[str, Any]]
    representation: str
    selection: dict[str, Any]
    counts: dict[str, int]
    scores: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what determines the result."""
        fingerprints = {role: store["fingerprint"] for role, store in self.stores.items()}
        return digest(
            [
                RESULT_FORMAT,
                self.task,
                self.protocol,
                fingerprints,
                self.representation,
                self.selection,
            ]
        )

    @property
    def name(self) -> str:
        """File name without suffix: the first store's words, the representation, the digest."""
        store = next(iter(self.stores.values()))
        words = [store["dataset"], store["view"], store["encoder"], self.representation]
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
        return f"{readable}-{self.digest[:DIGEST_SHOWN]}"

    def path(self, results: Path) -> Path:
        """Where the result lies below the directory of results."""
        return results / self.task / f"{self.name}.json"

    def to_json(self) -> dict[str, Any]:
        return {
            "format": RESULT_FORMAT,
            "task": self.task,
            "digest": self.digest,
            "scores": self.scores,
            "representation": self.representation,
            "stores": self.stores,
            "selection": self.selection,
            "protocol": self.protocol,
            "counts": self.counts,
            "seconds": {stage: round(time, 3) for stage, time in self.seconds.items()},
            "versions": versions(),
            "details": self.details,
        }


def describe_store(store: FeatureSource) -> dict[str, Any]:
    """What a result keeps of a store: enough to find it, and to read the result without it.

    `checksum` is that of the source; `spec` holds what determined the features: model, view,
    transform, precision, and the digest of rows.
    """
    made_by = ("encoder", "view", "transform", "precision", "rows")
    return {
        "title": store.title,
        "fingerprint": store.fingerprint,
        "checksum": store.checksum,
        "dataset": store.spec.dataset,
        "split": store.spec.split,
        "view": store.view,
        "encoder": store.encoder,
        "limit": store.spec.limit,
        "spec": {name: getattr(store.spec, name) for name in made_by},
    }


def write_result(results: Path, result: Result) -> Path:
    """Write a result below `results`, whole or not at all; returns the file. `StorageError`.

    It comes last of its files, so that it can list the others with their checksums.
    """
    path = result.path(results)
    fields = {**result.to_json(), "files": checksums.of_files(companion_files(path))}
    write_json(path, checksums.with_checksum(fields))
    return path


def companion_files(path: Path) -> Iterator[Path]:
    """Yield the tables and heads of the result at `path`, in order of their names."""
    for file in sorted(path.parent.glob(f"{path.stem}.*")):
        if not file.name.endswith(NOT_COMPANIONS):
            yield file


def difference(path: Path, fields: dict[str, Any], *, full: bool) -> str | None:
    """Describe how a result differs from what was written: its JSON, or one of its other files.

    Other files are compared by size, and with `full` by content.
    """
    if (reason := json_difference(path, fields)) is not None:
        return reason
    files = fields["files"]
    for name in files:
        reason = checksums.file_difference(path.parent / name, files, full=full)
        if reason is not None:
            return f"{name}: {reason}"
    return None


def json_difference(path: Path, fields: dict[str, Any]) -> str | None:
    """Describe how the JSON of a result differs from what was written."""
    digest = str(fields.get("digest"))[:DIGEST_SHOWN]
    if not path.stem.endswith(digest):
        return f"it is the result {digest}, whose file has another name"
    if not checksums.has_checksum(fields):
        return "its checksum is not that of its fields"
    return None


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file, compared with its checksum.

    Raises `MissingError`, `MismatchError` for what is not one, or `VerificationError` for one that
    has changed since it was written.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"no result at {path}.") from None
    except ValueError as error:
        raise MismatchError(f"{path} is not readable JSON ({error}).") from None
    found = fields.get("format") if isinstance(fields, dict) else None
    if is_newer(found, RESULT_FORMAT):
        raise NewerFormatError(path, "result", found, RESULT_FORMAT)
    if not isinstance(fields, dict) or found != RESULT_FORMAT:
        raise MismatchError(
            f"{path}: result format {found}, this version reads {RESULT_FORMAT}. "
            f"Run the same command again."
        )
    if (reason := json_difference(path, fields)) is not None:
        raise VerificationError(
            f"{path}: {reason}. Run the command that made it again, or delete the file; "
            f"`pa verify` checks all of them."
        )
    return fields


def check_stores(path: Path, fields: dict[str, Any], stores: Mapping[str, str]) -> None:
    """Raise `FingerprintError` where a result was made from other features than there are now.

    `stores` maps fingerprints to checksums (`pa.data.store.find.checksums`). A result outlives
    its store.
    """
    for store in fields.get("stores", {}).values():
        now = stores.get(store["fingerprint"])
        if now is not None and store["checksum"] not in (now, None):
            raise FingerprintError(
                f"{path} was made from other features of {store['title']} than there are now: the "
                f"store was extracted again, or repaired. Run the command that made it again."
            )


def versions() -> dict[str, str]:
    """Versions of what computes scores. Read from the installed metadata: imports no torch."""
    return {
        "pa": pa.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONED},
    }
