"""The manifest of a store: what its files were when the last shard was done.

It is written last, read first, and has a checksum of its own. Field by field: docs/formats.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import xxhash

from pa.data.seals import Seal
from pa.data.shards import BadImage, ShardInfo
from pa.data.spec import canonical_json

Identity = tuple[int, str, int]  # format, fingerprint, number of rows


class ManifestError(ValueError):
    """Why a text is not the manifest of a store."""


def compose(identity: Identity, rows: str, shards: Sequence[tuple[str, ShardInfo, Seal]]) -> Any:
    """The fields of a manifest: `rows` is the hash of the table, `shards` are name, what the shard
    says of itself, and the seal of its file."""
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
                **asdict(seal),
                "checksums": info.checksums,
            }
            for name, info, seal in shards
        ],
    }
    return {**fields, "checksum": _digest(fields)}


def parse(text: str, identity: Identity) -> dict[str, Any]:
    """What a manifest says: `bad` images; `checksums`, `seals` and `keys` by shard; `rows`, the
    hash of the table; `sizes`, rows of each shard, or None.

    Those of earlier versions have no checksum of their own, no seals, keys and sizes. Raises
    `ManifestError` for a text that is damaged, or of another store.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        found = (fields["format"], fields["fingerprint"], fields["n_rows"])
        bad = [BadImage(**entry) for entry in fields["bad"]]
        listed = {str(entry["file"]): dict(entry) for entry in fields["shards"]}
        checksums = {name: dict(entry["checksums"]) for name, entry in listed.items()}
        seals = {name: Seal.of(entry) for name, entry in listed.items()}
        sizes = [int(entry["rows"]) for entry in listed.values() if "rows" in entry]
        rows = str(fields["rows"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{type(error).__name__}: {error}") from None
    if found != identity:
        raise ManifestError(f"it is of another store: {found}")
    told, sealed = fields.pop("checksum", None), any("xxh3" in e for e in listed.values())
    if told != _digest(fields) and (told is not None or sealed):
        raise ManifestError("its checksum is not that of its fields")
    keys = {name: str(entry["key"]) for name, entry in listed.items() if "key" in entry}
    whole = len(sizes) == len(listed) and sum(sizes) == identity[2]
    return {
        "bad": bad,
        "checksums": checksums,
        "seals": seals,
        "keys": keys,
        "rows": rows,
        "sizes": sizes if whole else None,
    }


def _digest(fields: dict[str, Any]) -> str:
    """xxh3-128 of a manifest's fields but its checksum, as canonical JSON."""
    return xxhash.xxh3_128_hexdigest(canonical_json(fields).encode())
