"""The seal of a result: checksums of its JSON file and of the tables and heads beside it.

A result comes last of its files, so its JSON can speak of the others. Results of earlier versions
have no seal; of them only is known that they can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from pa.data import seals
from pa.data.files import PARTIAL_SUFFIX
from pa.data.seals import Seal
from pa.data.spec import canonical_json

TABLE, PARQUET = ".parquet", b"PAR1"
NOT_PART = (".json", ".state", PARTIAL_SUFFIX)  # the JSON itself, and what only work needs


def beside(path: Path) -> Iterator[Path]:
    """The other files of the result at `path`, in order of their names."""
    for file in sorted(path.parent.glob(f"{path.stem}.*")):
        if not file.name.endswith(NOT_PART):
            yield file


def sealed(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a result that is to lie at `path`, with its seal: `files` (name → bytes and
    xxh3) and `checksum`, xxh3-128 of all else as canonical JSON."""
    files = {file.name: asdict(seals.take(file)) for file in beside(path)}
    whole = json.loads(json.dumps({**fields, "files": files}))  # as it will be read back
    return {**whole, "checksum": _checksum(whole)}


def difference(path: Path, fields: dict[str, Any], *, full: bool) -> str | None:
    """In what a result is not what was written: its place, its fields, or a file beside it, by its
    size and with `full` by its bytes. Of a result without a seal is known only whether its tables
    are whole. None where nothing is wrong."""
    if (reason := own_difference(path, fields)) is not None:
        return reason
    if not is_sealed(fields):
        torn = ((file.name, torn_table(file)) for file in beside(path))
        return next((f"{name}: {reason}" for name, reason in torn if reason is not None), None)
    for name, entry in fields["files"].items():
        file, seal = path.parent / name, Seal.of(entry)
        if not file.exists():
            return f"{name}, written with it, is not there"
        if seal is not None and (reason := seal.difference(file, full=full)) is not None:
            return f"{name}: {reason}"
    return None


def own_difference(path: Path, fields: dict[str, Any]) -> str | None:
    """`difference` of the JSON file alone, whatever became of the files beside it."""
    if not path.stem.endswith(str(fields.get("digest"))[:12]):
        return f"it is the result {str(fields.get('digest'))[:12]}, in the place of another"
    own = {name: value for name, value in fields.items() if name != "checksum"}
    if is_sealed(fields) and _checksum(own) != fields.get("checksum"):
        return "its checksum is not that of its fields"
    return None


def is_sealed(fields: dict[str, Any]) -> bool:
    return bool(fields.keys() & {"checksum", "files"})


def torn_table(file: Path) -> str | None:
    """Why a file by the name of a Parquet table is none, as far as its ends show; else None.

    Parquet begins and ends with four bytes of its own, and before the last ones stands the length
    of its footer (Apache Parquet, file format).
    """
    if file.suffix != TABLE:
        return None
    size = file.stat().st_size
    if not size:
        return "it is empty"
    with file.open("rb") as opened:
        first = opened.read(len(PARQUET))
        opened.seek(max(size - 8, 0))
        footer, last = int.from_bytes(opened.read(4), "little"), opened.read()
    if first != PARQUET or last != PARQUET or footer + 12 > size:
        return f"its {size:,} bytes are no whole Parquet table"
    return None


def _checksum(fields: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(canonical_json(fields).encode())
