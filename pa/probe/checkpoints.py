"""The state of a training run on disk, so that a killed run resumes.

One safetensors file holds the tensors and, in its metadata, the run they belong to and the number
of steps done. It is replaced whole: a kill at any moment leaves the state before or after, never a
mixture.
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

STATE_FORMAT = "2"  # an older state is not resumed
SHARE = 0.1  # largest share of a run's time spent on saving


class Checkpoint:
    """The state file of one run; `key` is a digest of everything that determines its tensors."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._cost = 0.0  # seconds of the last save
        self._saved = time.monotonic()

    def load(self, tensors: Mapping[str, Tensor]) -> int:
        """Fill the tensors in place and return the number of steps done.

        Return 0 and leave the tensors unchanged if the file is missing, damaged or from another
        run.
        """
        with contextlib.suppress(
            SafetensorError, VerificationError, OSError, LookupError, ValueError
        ):
            saved, fields = read_tensors(self.path)
            steps = int(fields["steps"])
            is_same_run = (fields["format"], fields["key"]) == (STATE_FORMAT, self.key)
            if is_same_run and all(
                (saved[name].shape, saved[name].dtype) == (tensor.shape, tensor.dtype)
                for name, tensor in tensors.items()
            ):
                # All tensors fit: from here on nothing can fail half-way.
                with torch.no_grad():
                    for name, tensor in tensors.items():
                        tensor.copy_(saved[name])
                return steps
        return 0

    def save(self, tensors: Mapping[str, Tensor], steps: int, *, last: bool = False) -> bool:
        """Write the state after `steps` epochs or iterations; return whether it was written.

        Saving is skipped where it would take more than a tenth of the time, except for the `last`
        step. Raise `StorageError`.
        """
        started = time.monotonic()
        if not last and (started - self._saved) * SHARE < self._cost:
            return False
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"format": STATE_FORMAT, "key": self.key, "steps": str(steps)}
        # The library's own writer hides the error of a full disk.
        data = tensor_bytes(on_cpu, metadata)
        with replacing(self.path) as partial:
            partial.write_bytes(data)
        self._saved = time.monotonic()
        self._cost = self._saved - started
        return True

    def remove(self) -> None:
        """Remove the state and the partial files of killed processes on this host."""
        self.path.unlink(missing_ok=True)
        remove_stale(self.path.parent, self.path.name)
