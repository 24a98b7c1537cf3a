"""What a training run has done so far, on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pa.data.files import replacing

STATE_FORMAT = "1"


def write_state(path: Path, key: str, iteration: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors after `iteration` iterations, whole or not at all. `StorageError`."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": STATE_FORMAT, "key": key, "iteration": str(iteration)}
    data = save(held, metadata)  # in memory: the library's own writer hides a full disk's error
    with replacing(path) as partial:
        partial.write_bytes(data)


def read_state(path: Path, key: str, tensors: Mapping[str, Tensor]) -> int:
    """Fill the tensors from a state file, in place; returns how many iterations were done.

    A file that is not there, is damaged, or belongs to another run is no state: 0.
    """
    if not path.exists():
        return 0
    with contextlib.suppress(SafetensorError, KeyError, ValueError):
        with safe_open(path, framework="pt") as file:
            fields = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in tensors}
        fits = all(found[name].shape == tensor.shape for name, tensor in tensors.items())
        if fits and (fields["format"], fields["key"]) == (STATE_FORMAT, key):
            iteration = int(fields["iteration"])
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(found[name])
            return iteration
    return 0
