"""Safetensors files whose bytes depend on what they hold, with a checksum that is compared."""

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

CHECKSUM = "checksum"  # the name of its field in the metadata
_ALIGNED = 8


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file. Equal contents give equal bytes.

    The library writes the metadata in an order that differs from process to process; here the
    header, which is JSON, is sorted, and its metadata gets a checksum of all else. Offsets in it
    count from its end, so they stay.
    """
    header, data = _split(save(dict(tensors), dict(metadata)))
    header["__metadata__"][CHECKSUM] = _checksum(header, data)
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text + data


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that `tensor_bytes` made.

    Raises `ValueError` for another file, `VerificationError` where it is not what was written.
    """
    written = path.read_bytes()
    header, data = _split(written)
    metadata = header.get("__metadata__") or {}
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and _checksum(header, data) != expected:
        raise VerificationError(
            f"{path} is not what was written: its checksum is not that of its bytes. Delete it and "
            f"run the command that made it again."
        )
    if expected is None:
        raise ValueError("it has no checksum")
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
