"""The spec: everything that determines the features of a store, and its fingerprint.

Two runs with equal specs compute equal features (up to the arithmetic of the device), so a store
may be resumed, shared and compared by fingerprint alone. What does not change the features (shard
size, versions of libraries, machine) is recorded elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import polars as pl

FINGERPRINT_SHOWN = 16  # hex digits in names of directories and in output: unique in practice

# The fields of `pa.extract.encoders.base.Features`.
REPRESENTATIONS = (
    "cls",  # class token
    "pooled",  # mean of the patch tokens
    "patch",  # patch tokens (L, D)
    "projected",  # output of the pretraining projector
    "bottleneck",  # its layer before the prototypes
    "layers",  # patch tokens of selected blocks
    "layers_cls",  # class token of the same blocks
    "layers_pooled",  # mean of the same patch tokens
)

# The representations of pretraining projectors, and the encoders with them; see their cards.
OF_PROJECTORS = ("projected", "bottleneck")
PROJECTORS = {"dino": OF_PROJECTORS, "ibot": OF_PROJECTORS, "mocov3": ("projected",)}
WITHOUT_PROJECTOR = ("beit", "cae", "deit", "mae")  # and every timm network

Difference = tuple[str, Any, Any]


def reason_absent(encoder: str, representation: str) -> str | None:
    """Return why no file of an encoder has a representation; None if one may."""
    if representation not in OF_PROJECTORS or representation in PROJECTORS.get(encoder, ()):
        return None
    givers = ", ".join(name for name, gives in PROJECTORS.items() if representation in gives)
    if encoder in WITHOUT_PROJECTOR or encoder.startswith("timm/"):
        return f"{encoder} has no projector. Encoders that give {representation}: {givers}."
    if encoder in PROJECTORS:
        return f"the projector of {encoder} gives no {representation}. Encoders that do: {givers}."
    return None


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values, equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_rows(rows: pl.DataFrame) -> str:
    """Return the SHA-256 (hex) of names, types and values of a table, whatever its file format.

    Numbers count as little-endian bytes with a mask of missing values, text as JSON.
    """
    state = hashlib.sha256(canonical_json([[n, str(t)] for n, t in rows.schema.items()]).encode())
    for column in rows.iter_columns():
        if column.dtype.is_numeric():
            # A missing value counts in the mask, whatever number fills its position.
            values = column.fill_null(0).to_numpy()  # (n,)
            state.update(column.is_null().to_numpy().tobytes())
            state.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        else:
            for start in range(0, len(column), 65536):  # bounds the memory of the text
                state.update(canonical_json(column.slice(start, 65536).to_list()).encode())
    return state.hexdigest()


@dataclass(frozen=True)
class Spec:
    """Everything that determines the features of one store.

    `representations` maps a name to its shape per row; `rows` holds the number of rows and images
    and the digest of the table of rows (file sizes included); `limit` is the value of `--limit`.
    """

    dataset: str
    split: str
    view: dict[str, Any]
    encoder: dict[str, Any]
    transform: dict[str, Any]
    precision: dict[str, str]
    representations: dict[str, list[int]]
    rows: dict[str, Any]
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.to_json())

    @property
    def short(self) -> str:
        return self.fingerprint[:FINGERPRINT_SHOWN]

    @cached_property
    def recipe(self) -> str:
        """Digest of all that determines the features of one row, independent of other rows."""
        others = ("rows", "limit", "split")
        return digest({k: v for k, v in self.to_json().items() if k not in others})

    def fields(self) -> dict[str, Any]:
        """Return every field by its dotted name."""
        return {name: value for name, value, _ in _differences("", self.to_json(), {})}

    def differences(self, other: Spec) -> list[Difference]:
        """Return the fields in which `other` differs: (dotted name, own value, other value)."""
        return list(_differences("", self.to_json(), other.to_json()))


def _differences(prefix: str, old: Any, new: Any) -> Iterator[Difference]:
    if isinstance(old, dict):
        others = new if isinstance(new, dict) else {}
        for key in sorted(old.keys() | others.keys()):
            name = f"{prefix}.{key}" if prefix else key
            yield from _differences(name, old.get(key), others.get(key))
    elif old != new:
        yield prefix, old, new


def describe(differences: list[Difference]) -> str:
    """Return one line per differing field, with old and new value."""
    width = max((len(name) for name, _, _ in differences), default=0)
    return "\n".join(
        f"  {name:<{width}}  {_short(old)}  →  {_short(new)}" for name, old, new in differences
    )


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 44 else f"{text[:20]}…{text[-20:]}"
