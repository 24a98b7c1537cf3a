"""Checksums of files and of JSON fields, as stores, indexes and results record them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from pa.data.store.spec import canonical_json

READ_BYTES = 1 << 22  # 4 MB per read: large enough for sequential speed, small in memory
MISMATCH = "its checksum does not match"  # the reason of every error about changed JSON fields


@dataclass(frozen=True)
class FileChecksum:
    """Size of a file in bytes, and the xxh3-128 of its content in hexadecimal."""

    bytes: int
    xxh3: str

    @classmethod
    def of(cls, path: Path) -> FileChecksum:
        state = xxhash.xxh3_128()
        with path.open("rb", buffering=0) as file:
            while block := file.read(READ_BYTES):
                state.update(block)
        return cls(path.stat().st_size, state.hexdigest())

    def difference(self, path: Path, *, full: bool) -> str | None:
        """Describe how a file differs: by its size, and with `full` by its content."""
        size = path.stat().st_size  # compared first: reads no data
        if size != self.bytes:
            return f"it has {size:,} bytes, {self.bytes:,} were written"
        if full and FileChecksum.of(path) != self:
            return "its bytes have changed since they were written"
        return None


def of_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the checksum of each file by its name, as JSON."""
    return {path.name: asdict(FileChecksum.of(path)) for path in paths}


def file_difference(path: Path, files: dict[str, dict[str, Any]], *, full: bool) -> str | None:
    """Describe how a file differs from its entry in `files` (see `of_files`)."""
    if path.name not in files:
        return "it was not written with the result"
    if not path.exists():
        return "it is missing"
    return FileChecksum(**files[path.name]).difference(path, full=full)


def save(path: Path, note: Path) -> None:
    """Compute the checksum of a file just written, while it is cached, and store it in `note`."""
    fields = {**asdict(FileChecksum.of(path)), "mtime": path.stat().st_mtime_ns}
    note.write_text(json.dumps(fields))


def load(path: Path, note: Path) -> FileChecksum:
    """Return the checksum in `note`, or compute it if the note is damaged or of another file."""
    try:
        fields = json.loads(note.read_text())
        checksum, status = FileChecksum(int(fields["bytes"]), str(fields["xxh3"])), path.stat()
        if (status.st_size, status.st_mtime_ns) == (checksum.bytes, fields["mtime"]):
            return checksum
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return FileChecksum.of(path)


def with_checksum(fields: dict[str, Any]) -> dict[str, Any]:
    """Add `checksum` to JSON fields: the xxh3-128 of all others as canonical JSON."""
    whole: dict[str, Any] = json.loads(json.dumps(fields))  # as they will be read back
    whole.pop("checksum", None)  # that of the fields before a change
    return {**whole, "checksum": _checksum(whole)}


def has_checksum(fields: dict[str, Any]) -> bool:
    """Return whether the `checksum` of JSON fields is that of all others."""
    others = {name: value for name, value in fields.items() if name != "checksum"}
    return fields.get("checksum") == _checksum(others)


def _checksum(fields: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(canonical_json(fields).encode())
