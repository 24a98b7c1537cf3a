"""Checksums of JSON fields, and the seal of a file: size and hash of all its bytes.

The seal of a shard is taken when it was written. Until the manifest holds them, seals are stored
next to the locks; one that is missing is computed again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from pa.data.store.spec import canonical_json

PIECE = 1 << 22  # bytes that are read at a time


@dataclass(frozen=True)
class Seal:
    """Bytes of a file, and the xxh3-128 of them in hexadecimal."""

    bytes: int
    xxh3: str

    def difference(self, path: Path, *, full: bool) -> str | None:
        """In what a file is not the sealed one: by its size, and with `full` by its bytes."""
        size = path.stat().st_size
        if size != self.bytes:
            return f"it has {size:,} bytes, {self.bytes:,} were written"
        if full and hash_file(path) != self.xxh3:
            return "its bytes have changed since they were written"
        return None


def hash_file(path: Path) -> str:
    """The xxh3-128 of a file."""
    state = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            state.update(piece)
    return state.hexdigest()


def take(path: Path) -> Seal:
    return Seal(path.stat().st_size, hash_file(path))


def keep(path: Path, note: Path) -> None:
    """Take the seal of a file that was just written, from the page cache, and note it."""
    fields = {**asdict(take(path)), "mtime": path.stat().st_mtime_ns}
    note.write_text(json.dumps(fields))


def recall(path: Path, note: Path) -> Seal:
    """The noted seal of a file, or one taken now where the note is of another file, or torn."""
    try:
        fields = json.loads(note.read_text())
        seal, found = Seal(int(fields["bytes"]), str(fields["xxh3"])), path.stat()
        if (found.st_size, found.st_mtime_ns) == (seal.bytes, fields["mtime"]):
            return seal
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return take(path)


def with_checksum(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON fields and their `checksum`: xxh3-128 of all others, as canonical JSON."""
    whole: dict[str, Any] = json.loads(json.dumps(fields))  # as they will be read back
    whole.pop("checksum", None)
    return {**whole, "checksum": _checksum(whole)}


def has_checksum(fields: dict[str, Any]) -> bool:
    """Whether JSON fields are those that were given their checksum."""
    own = {name: value for name, value in fields.items() if name != "checksum"}
    return fields.get("checksum") == _checksum(own)


def _checksum(fields: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(canonical_json(fields).encode())
