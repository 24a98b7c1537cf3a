"""A trained linear head.

Shapes: n rows, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.errors import MismatchError
from pa.probe.heads import Floats, Head


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Statistics of a BatchNorm without affine before a head."""

    mean: Floats  # (D,)
    var: Floats  # (D,)
    eps: float

    def __call__(self, features: Floats) -> Floats:
        normed: Floats = (features - self.mean) / np.sqrt(self.var + np.float32(self.eps))
        return normed


@dataclass(frozen=True, eq=False)
class LinearHead(Head):
    """One head over `classes`, for one vector per row of a store."""

    kind: ClassVar[str] = "linear"

    weight: Floats  # (C, D)
    bias: Floats  # (C,)
    classes: tuple[str, ...]
    representation: str
    fingerprint: str
    norm: BatchNorm | None = None  # applied before weight and bias
    store_checksum: str | None = None

    def logits(self, features: npt.NDArray[Any]) -> Floats:
        """Return class scores (n, C) of features (n, D). Raise `MismatchError` for other shapes."""
        width = self.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            raise MismatchError(
                f"this head reads features of shape (n, {width}), not {features.shape}."
            )
        if self.norm is not None:
            features = self.norm(features)
        return features @ self.weight.T + self.bias  # (n, C)

    def tensors(self) -> dict[str, Tensor]:
        arrays = {"weight": self.weight, "bias": self.bias}
        if self.norm is not None:
            arrays |= {"bn_mean": self.norm.mean, "bn_var": self.norm.var}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}

    def constants(self) -> dict[str, str]:
        return {} if self.norm is None else {"bn_eps": repr(self.norm.eps)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], fields: Mapping[str, str], **origin: Any) -> LinearHead:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        norm = None
        if "bn_mean" in arrays:
            norm = BatchNorm(arrays["bn_mean"], arrays["bn_var"], float(fields["bn_eps"]))
        return cls(arrays["weight"], arrays["bias"], norm=norm, **origin)
