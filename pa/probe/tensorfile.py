"""Safetensors files with deterministic bytes and a checksum that is verified on reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash
from safetensors.torch import load, save
from torch import Tensor

from pa.data.store.spec import canonical_json
from pa.errors import VerificationError

CHECKSUM = "checksum"  # field of the metadata
ALIGNMENT = 8  # bytes, of the header, as the format requires


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file. Equal contents give equal bytes.

    The library writes the metadata in an order that differs between processes. Here the JSON header
    is sorted, and its metadata gets a checksum of everything else. Offsets count from the end of
    the header, so they stay valid.
    """
    # Written by the library, then only the header is written again.
    header, data = _split(save(dict(tensors), dict(metadata)))
    header["__metadata__"][CHECKSUM] = _checksum(header, data)
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a file written by `tensor_bytes`.

    Raise `ValueError` for another file, `VerificationError` if its bytes have changed.
    """
    written = path.read_bytes()
    header, data = _split(written)
    metadata = header.get("__metadata__") or {}
    expected = metadata.pop(CHECKSUM, None)
    if expected is None:
        raise ValueError("it has no checksum")
    if _checksum(header, data) != expected:
        raise VerificationError(
            f"{path} has changed since it was written: its checksum does not match its bytes. "
            f"Delete it and run the command that wrote it again."
        )
    return load(written), metadata


def _split(written: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(written[:8], "little")
    header = json.loads(written[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("it has no header")
    return header, written[8 + length :]


def _checksum(header: dict[str, Any], data: bytes) -> str:
    state = xxhash.xxh3_128(canonical_json(header).encode())
    state.update(data)
    return state.hexdigest()
