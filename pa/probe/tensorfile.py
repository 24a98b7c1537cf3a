"""Safetensors files whose bytes depend on what they hold, and on nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_ALIGNED = 8


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file. Equal contents give equal bytes.

    The library writes the metadata in an order that differs from process to process; here the
    header, which is JSON, is sorted. Offsets in it count from its end, so they stay.
    """
    written = save(dict(tensors), dict(metadata))
    length = int.from_bytes(written[:8], "little")
    header = json.dumps(
        json.loads(written[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % _ALIGNED)
    return len(header).to_bytes(8, "little") + header + written[8 + length :]
