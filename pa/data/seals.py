"""The seal of a shard: size and hash of its whole file, taken when it was written.

The checksums inside a shard cover its arrays and are read through HDF5; one flipped bit in HDF5's
own structures can make that library go round in circles. A seal is compared before it opens a file.
Until the manifest holds them, seals lie beside the locks; one that is not there is taken anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

PIECE = 1 << 22  # bytes that are read at a time


@dataclass(frozen=True)
class Seal:
    """Bytes of a file, and the xxh3-128 of them in hexadecimal."""

    bytes: int
    xxh3: str

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Seal | None:
        """The seal in an entry of a manifest; None in those of earlier versions."""
        if "xxh3" not in entry:
            return None
        return cls(int(entry["bytes"]), str(entry["xxh3"]))

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
