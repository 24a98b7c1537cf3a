"""The seal of a result: checksums of its JSON file and of the tables and heads beside it.

The JSON file of a result is written last, so it can list the other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pa.data.files import PARTIAL_SUFFIX
from pa.data.store import checksums as seals
from pa.data.store.checksums import Seal

NOT_PART = (".json", ".state", PARTIAL_SUFFIX)  # the JSON itself, and what only work needs


def beside(path: Path) -> Iterator[Path]:
    """The other files of the result at `path`, in order of their names."""
    for file in sorted(path.parent.glob(f"{path.stem}.*")):
        if not file.name.endswith(NOT_PART):
            yield file


def sealed(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a result that is to lie at `path`, with its seal: `files` (name → bytes and
    xxh3) and `checksum` of all else."""
    files = {file.name: asdict(seals.take(file)) for file in beside(path)}
    return seals.with_checksum({**fields, "files": files})


def difference(path: Path, fields: dict[str, Any], *, full: bool) -> str | None:
    """In what a result is not what was written: its place, its fields, or a file beside it, by its
    size and with `full` by its bytes. None where nothing is wrong."""
    if (reason := own_difference(path, fields)) is not None:
        return reason
    for name in fields["files"]:
        if (reason := file_difference(path.parent / name, fields, full=full)) is not None:
            return f"{name}: {reason}"
    return None


def file_difference(file: Path, fields: dict[str, Any], *, full: bool) -> str | None:
    """Return how a file of a result with these fields differs from the one written with it."""
    entry = fields["files"].get(file.name)
    if entry is None:
        return "it was not written with the result"
    if not file.exists():
        return "it is not there"
    return Seal(**entry).difference(file, full=full)


def own_difference(path: Path, fields: dict[str, Any]) -> str | None:
    """`difference` of the JSON file alone, whatever became of the files beside it."""
    if not path.stem.endswith(str(fields.get("digest"))[:12]):
        return f"it is the result {str(fields.get('digest'))[:12]}, in the place of another"
    if not seals.has_checksum(fields):
        return "its checksum is not that of its fields"
    return None
