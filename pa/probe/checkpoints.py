"""What a training run has done so far, on disk, so that a killed one goes on where it was.

One safetensors file holds the tensors and, in its metadata, what they belong to and how far the run
was. It is replaced whole: a kill at any moment leaves the state before or after, never between.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from pa.data.files import remove_stale, replacing
from pa.errors import VerificationError
from pa.probe.tensorfile import read_tensors, tensor_bytes

STATE_FORMAT = "2"
SHARE = 0.1  # of a run's time that saving may take


class Checkpoint:
    """The state file of one run; `key` is a digest of everything that determines its course."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._cost = 0.0
        self._saved = time.monotonic()

    def load(self, tensors: Mapping[str, Tensor]) -> int:
        """Fill the tensors in place; returns how many steps were done.

        A file that is not there, is damaged, or belongs to another run is no state: 0, and the
        tensors are as they were.
        """
        with contextlib.suppress(
            SafetensorError, VerificationError, OSError, LookupError, ValueError
        ):
            found, fields = read_tensors(self.path)
            fits = all(
                (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
                for name, tensor in tensors.items()
            )
            if fits and (fields["format"], fields["key"]) == (STATE_FORMAT, self.key):
                steps = int(fields["steps"])
                with torch.no_grad():
                    for name, tensor in tensors.items():
                        tensor.copy_(found[name])
                return steps
        return 0

    def save(self, tensors: Mapping[str, Tensor], steps: int, *, last: bool = False) -> bool:
        """Write the state after `steps` epochs or iterations; whether it was written.

        Raises `StorageError`.

        A step is passed over where writing would take more than a tenth of the time, so that short
        steps are not spent on writing; the `last` one never is.
        """
        started = time.monotonic()
        if not last and (started - self._saved) * SHARE < self._cost:
            return False
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"format": STATE_FORMAT, "key": self.key, "steps": str(steps)}
        # In memory: the library's own writer hides a full disk's error.
        data = tensor_bytes(held, metadata)
        with replacing(self.path) as partial:
            partial.write_bytes(data)
        self._saved = time.monotonic()
        self._cost = self._saved - started
        return True

    def remove(self) -> None:
        """Remove the state, and what killed processes of this host left of it."""
        self.path.unlink(missing_ok=True)
        remove_stale(self.path.parent, self.path.name)
