"""The manifest of a store: the checksums of its files when the last shard was written.

It is written last, read first, and has its own checksum. Field by field: docs/formats.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pa.data.store.checksums import MISMATCH, FileChecksum, has_checksum, with_checksum
from pa.data.store.shards import BadImage, ShardInfo

Identity = tuple[int, str, int]  # format, fingerprint, number of rows


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the manifest, in the order of its JSON fields."""

    file: str  # name
    rows: int  # number of rows
    key: str  # `Store.shard_key`: digest of all that determines its bytes
    bytes: int  # size and xxh3-128 of the file
    xxh3: str
    checksums: dict[str, str]  # xxh3-128 by array
    offsets: dict[str, int]  # byte at which an array, or its row checksums, begins

    @property
    def file_checksum(self) -> FileChecksum:
        return FileChecksum(self.bytes, self.xxh3)


@dataclass(frozen=True)
class Manifest:
    """The manifest of a store."""

    rows: str  # hash of the table of rows
    bad: list[BadImage]
    shards: dict[str, ShardEntry]  # by file name
    checksum: str  # the manifest's own, which covers the whole content of the store


def compose(
    identity: Identity, rows: str, shards: Sequence[tuple[str, ShardInfo, FileChecksum]]
) -> dict[str, Any]:
    """Return the fields of a manifest.

    `rows` is the hash of the table; `shards` are name, attributes and file checksum of each shard.
    """
    entries = [
        ShardEntry(name, info.n_rows, info.key, file.bytes, file.xxh3, info.checksums, info.offsets)
        for name, info, file in shards
    ]
    fields = {
        **dict(zip(("format", "fingerprint", "n_rows"), identity, strict=True)),
        "rows": rows,
        "bad": [asdict(bad) for _, info, _ in shards for bad in info.bad],
        "shards": [vars(entry) for entry in entries],
    }
    return with_checksum(fields)


def parse(text: str, identity: Identity) -> Manifest:
    """Read a manifest. Raise `ValueError` for a text that is damaged or of another store."""
    fields = json.loads(text)
    try:
        recorded = (fields["format"], fields["fingerprint"], fields["n_rows"])
        if recorded != identity:
            raise ValueError(f"it is of another store: {recorded}")
        if not has_checksum(fields):
            raise ValueError(MISMATCH)
        shards = {entry["file"]: ShardEntry(**entry) for entry in fields["shards"]}
        bad = [BadImage(**entry) for entry in fields["bad"]]
        return Manifest(fields["rows"], bad, shards, fields["checksum"])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
