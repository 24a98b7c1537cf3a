"""Result files: one JSON file per run with its scores, counts, protocol and stores.

`results/<task>/<name>.json`. The name ends in a digest of everything that determines the content
(protocol, stores, representation, selection), so a repeated run replaces its own file and no other.
Versions, times and scores are recorded and not part of the digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pa.data.files import PARTIAL_SUFFIX, write_json
from pa.data.store import checksums
from pa.errors import (
    FingerprintError,
    MismatchError,
    MissingError,
    NewerFormatError,
    VerificationError,
    is_newer,
)
from pa.evaluate.results import (
    DIGEST_SHOWN,
    RESULT_FORMAT,
    RESULT_TYPES,
    ProbeResult,
    Result,
)

# What a result's name matches and is not a file of it: the JSON itself, and files of work.
NOT_COMPANIONS = (".json", ".state", PARTIAL_SUFFIX)


@dataclass(frozen=True, eq=False)
class ResultFile:
    """A result as it was read from its file.

    `written` is the time of its last change (UTC), `files` the checksums of the tables and heads
    that were written with it, `versions` those of the packages that computed it.
    """

    path: Path
    result: Result
    written: datetime
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]

    def companion_difference(self, path: Path, *, full: bool = True) -> str | None:
        """Describe how a table or head differs from the one written with the result.

        Files are compared by size, and with `full` by content.
        """
        return checksums.file_difference(path, self.files, full=full)

    def difference(self, *, full: bool) -> str | None:
        """Describe the first of the tables and heads that differs, None if all are intact."""
        for name in self.files:
            reason = self.companion_difference(self.path.with_name(name), full=full)
            if reason is not None:
                return f"{name}: {reason}"
        return None


def write_result(results: Path, result: Result) -> Path:
    """Write a result below `results` atomically and return its path. Raises `StorageError`.

    Call it last: the file records the checksums of the tables and heads that exist by then.
    """
    path = result.path(results)
    content = {**result.to_json(), "files": checksums.of_files(companion_files(path))}
    write_json(path, checksums.with_checksum(content))
    return path


def companion_files(path: Path) -> Iterator[Path]:
    """Yield the tables and heads of the result at `path`, in order of their names."""
    for file in sorted(path.parent.glob(f"{path.stem}.*")):
        if not file.name.endswith(NOT_COMPANIONS):
            yield file


def read_result(path: Path) -> ResultFile:
    """Read a result file and compare it with its checksum.

    Raises
    ------
    MissingError
        The file does not exist.
    MismatchError
        It is not a result of this format.
    VerificationError
        It has changed since it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        raise MissingError(f"no result at {path}.") from None
    except ValueError as error:
        raise MismatchError(f"{path} is not readable JSON ({error}).") from None
    version = content.get("format") if isinstance(content, dict) else None
    if is_newer(version, RESULT_FORMAT):
        raise NewerFormatError(path, "result", version, RESULT_FORMAT)
    if not isinstance(content, dict) or version != RESULT_FORMAT:
        raise MismatchError(
            f"{path}: result format {version}, this version reads {RESULT_FORMAT}. "
            f"Run the same command again."
        )
    if (reason := _json_difference(path, content)) is not None:
        raise VerificationError(
            f"{path}: {reason}. Run the command that wrote it again, or delete the file; "
            f"`pa verify` checks all of them."
        )
    # The checksum is right, so that a field that does not fit was written that way.
    try:
        task = str(content["task"])
        names = {item.name for item in fields(Result)}
        result = _adapter(task).validate_python({k: v for k, v in content.items() if k in names})
        computed_by = {str(name): str(value) for name, value in content["versions"].items()}
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, value = ".".join(map(str, first["loc"])), repr(first["input"])
        shown = value if len(value) <= 40 else value[:39] + "…"
        reason = f"{where} is {shown}: {first['msg'].removeprefix('Value error, ')}"
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"it is not a result of a known task ({error!r})"
    else:
        return ResultFile(path, result, written, dict(content["files"]), computed_by)
    raise MismatchError(
        f"{path}: {reason}. Run the command that wrote it again, or delete the file."
    )


def _json_difference(path: Path, content: dict[str, Any]) -> str | None:
    """Describe how the JSON of a result differs from what was written."""
    digest = str(content.get("digest"))[:DIGEST_SHOWN]
    if not path.stem.endswith(digest):
        return f"it is the result {digest}, whose file has another name"
    if not checksums.has_checksum(content):
        return "its checksum does not match"
    return None


@cache
def _adapter(task: str) -> TypeAdapter[Result]:
    # Any other task is a probe that a user added with a subclass of `ProbeResult`.
    kind = RESULT_TYPES.get(task) or type("OtherProbeResult", (ProbeResult,), {"task": task})
    return TypeAdapter(kind)


def check_stores(file: ResultFile, stores: Mapping[str, str]) -> None:
    """Raise `FingerprintError` if a store of a result now holds other features.

    `stores` maps fingerprints to checksums (`pa.data.store.find.checksums`). A result remains
    valid after its store is deleted.
    """
    # A deleted store is not in `stores`; one without a checksum cannot be compared.
    for store in file.result.stores_by_role.values():
        now = stores.get(store.fingerprint)
        if now is not None and store.checksum not in (now, None):
            raise FingerprintError(
                f"{file.path} was computed from other features of {store.title} than the store "
                f"holds now: it was extracted again, or repaired. Run the command that wrote the "
                f"result again."
            )
