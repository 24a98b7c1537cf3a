"""The manifest of a store: the checksums of its files when the last shard was written.

It is written last, read first, and has its own checksum. Field by field: docs/formats.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pa.data.store.checksums import FileChecksum, has_checksum, with_checksum
from pa.data.store.shards import BadImage, ShardInfo

Identity = tuple[int, str, int]  # format, fingerprint, number of rows


class ManifestError(ValueError):
    """The reason why a text is not the manifest of a store."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the manifest: rows, key, checksum of its file, and checksums and byte offsets of
    its arrays."""

    rows: int  # number of rows
    key: str  # `Store.shard_key`: digest of all that determines its bytes
    file: FileChecksum
    checksums: dict[str, str]  # xxh3-128 by array
    offsets: dict[str, int]  # byte at which an array, or its row checksums, begins


@dataclass(frozen=True)
class Manifest:
    """The manifest of a store.

    `rows` is the hash of the table of rows, `shards` are the shards by file name, `checksum` is the
    manifest's own checksum, which covers the whole content of the store.
    """

    rows: str
    bad: list[BadImage]
    shards: dict[str, ShardEntry]
    checksum: str


def compose(
    identity: Identity, rows: str, shards: Sequence[tuple[str, ShardInfo, FileChecksum]]
) -> Any:
    """Return the fields of a manifest.

    `rows` is the hash of the table; `shards` are name, attributes and file checksum of each shard.
    """
    store_format, fingerprint, n_rows = identity
    fields = {
        "format": store_format,
        "fingerprint": fingerprint,
        "n_rows": n_rows,
        "rows": rows,
        "bad": [asdict(bad) for _, info, _ in shards for bad in info.bad],
        "shards": [
            {
                "file": name,
                "rows": info.n_rows,
                "key": info.key,
                **asdict(file),
                "checksums": info.checksums,
                "offsets": info.offsets,
            }
            for name, info, file in shards
        ],
    }
    return with_checksum(fields)


def parse(text: str, identity: Identity) -> Manifest:
    """Read a manifest. Raise `ManifestError` for a text that is damaged, or of another store."""
    try:
        fields: dict[str, Any] = json.loads(text)
        recorded = (fields["format"], fields["fingerprint"], fields["n_rows"])
        if recorded != identity:
            raise ManifestError(f"it is of another store: {recorded}")
        if not has_checksum(fields):
            raise ManifestError("its checksum is not that of its fields")
        shards = {
            str(entry["file"]): ShardEntry(
                int(entry["rows"]),
                str(entry["key"]),
                FileChecksum(int(entry["bytes"]), str(entry["xxh3"])),
                dict(entry["checksums"]),
                dict(entry["offsets"]),
            )
            for entry in fields["shards"]
        }
        bad = [BadImage(**entry) for entry in fields["bad"]]
        return Manifest(str(fields["rows"]), bad, shards, str(fields["checksum"]))
    except ManifestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{type(error).__name__}: {error}") from None
