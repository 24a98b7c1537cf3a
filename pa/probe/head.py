"""A trained linear head: apply it, save it, load it.

Shapes: n rows, D width, C classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pa.data.files import replacing
from pa.errors import CheckpointError, MismatchError, MissingError

HEAD_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class LinearHead:
    """`weight` (C, D) and `bias` (C,), float32, over `classes`; made for the features
    `representation` of the store with this `fingerprint`."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    representation: str
    fingerprint: str

    def logits(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Class scores (n, C) of features (n, D). Raises `MismatchError` for another width."""
        width = self.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            raise MismatchError(
                f"this head reads features of shape (n, {width}), not {features.shape}."
            )
        return features @ self.weight.T + self.bias

    def predict(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Class index (n,) of features (n, D)."""
        predicted: npt.NDArray[np.int64] = self.logits(features).argmax(axis=1)
        return predicted

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        metadata = {
            "format": HEAD_FORMAT,
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "representation": self.representation,
            "fingerprint": self.fingerprint,
        }
        tensors = {
            "weight": np.ascontiguousarray(self.weight),
            "bias": np.ascontiguousarray(self.bias),
        }
        with replacing(path) as partial:
            save_file(tensors, partial, metadata)

    @classmethod
    def load(cls, path: Path) -> LinearHead:
        """Read a saved head. Raises `MissingError`; `CheckpointError` for another kind of file."""
        if not path.exists():
            raise MissingError(f"no trained head at {path}. `pa probe linear` makes one.")
        try:
            with safe_open(path, framework="numpy") as file:
                fields = file.metadata() or {}
                if fields.get("format") != HEAD_FORMAT:
                    raise CheckpointError(
                        f"{path}: head format {fields.get('format')}, "
                        f"this version reads {HEAD_FORMAT}."
                    )
                return cls(
                    weight=file.get_tensor("weight"),
                    bias=file.get_tensor("bias"),
                    classes=tuple(json.loads(fields["classes"])),
                    representation=fields["representation"],
                    fingerprint=fields["fingerprint"],
                )
        except (SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} is not a linear head of pa ({error}).") from None
