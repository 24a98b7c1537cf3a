"""A trained linear head: apply it, save it, load it.

Shapes: n rows, D width, C classes, S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.errors import MismatchError
from pa.probe.heads import reading_heads, write_heads

KIND = "linear"

Floats = npt.NDArray[np.float32]


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
class LinearHead:
    """One head over `classes`, for one representation of a store."""

    weight: Floats  # (C, D)
    bias: Floats  # (C,)
    classes: tuple[str, ...]
    representation: str  # such as "cls" or "cls+pooled"
    fingerprint: str  # of the training store
    norm: BatchNorm | None = None  # applied before weight and bias
    store_checksum: str | None = None  # of the training store, when the head was trained

    def logits(self, features: Floats) -> Floats:
        """Return class scores (n, C) of features (n, D). Raise `MismatchError` for other shapes."""
        width = self.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            raise MismatchError(
                f"this head reads features of shape (n, {width}), not {features.shape}."
            )
        if self.norm is not None:
            features = self.norm(features)
        return features @ self.weight.T + self.bias  # (n, C)

    def probabilities(self, features: Floats) -> Floats:
        """Return the softmax of the class scores, (n, C)."""
        logits = self.logits(features)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))  # at most 1: no overflow
        probabilities: Floats = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, features: Floats) -> npt.NDArray[np.int64]:
        """Return class indices (n,) of features (n, D)."""
        predicted: npt.NDArray[np.int64] = self.logits(features).argmax(axis=1)
        return predicted

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        save_heads(path, [self])

    @classmethod
    def load(cls, path: Path) -> LinearHead:
        """Read the first head of a file. Raise as `load_heads`."""
        return load_heads(path)[0]


def save_heads(path: Path, heads: Sequence[LinearHead]) -> None:
    """Write the heads of all seeds, which differ only in their numbers, to one safetensors file.

    One head has `weight` (C, D) and `bias` (C,); S > 1 have (S, C, D) and (S, C). With a
    BatchNorm, `bn_mean` and `bn_var` are (D,) or (S, D).
    """
    arrays = {"weight": [head.weight for head in heads], "bias": [head.bias for head in heads]}
    norms = [head.norm for head in heads if head.norm is not None]  # of all heads, or of none
    more = {}
    if norms:
        more["bn_eps"] = repr(norms[0].eps)
        arrays["bn_mean"] = [norm.mean for norm in norms]
        arrays["bn_var"] = [norm.var for norm in norms]
    tensors = {
        name: torch.from_numpy(
            np.ascontiguousarray(values[0] if len(values) == 1 else np.stack(values))
        )
        for name, values in arrays.items()
    }
    first = heads[0]
    write_heads(
        path,
        KIND,
        tensors,
        first.classes,
        first.representation,
        first.fingerprint,
        first.store_checksum,
        **more,
    )


def load_heads(path: Path) -> tuple[LinearHead, ...]:
    """Read the heads of a file. Raise `MissingError`, or `CheckpointError` for another file."""
    with reading_heads(path, KIND) as (tensors, fields):
        weight, bias = _by_seed(tensors["weight"], 2), _by_seed(tensors["bias"], 1)
        norms: list[BatchNorm | None] = [None] * len(weight)
        if "bn_mean" in tensors:
            eps = float(fields["bn_eps"])
            statistics = (_by_seed(tensors[name], 1) for name in ("bn_mean", "bn_var"))
            norms = [BatchNorm(mean, var, eps) for mean, var in zip(*statistics, strict=True)]
        classes = tuple(json.loads(fields["classes"]))
        return tuple(
            LinearHead(
                w,
                b,
                classes,
                fields["representation"],
                fields["fingerprint"],
                norm,
                fields["store_checksum"] or None,
            )
            for w, b, norm in zip(weight, bias, norms, strict=True)
        )


def _by_seed(tensor: Tensor, ndim: int) -> list[Floats]:
    """Return the arrays of `ndim` axes that a tensor holds, with or without an axis of seeds."""
    if tensor.ndim not in (ndim, ndim + 1):
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)}")
    return list(tensor.numpy() if tensor.ndim == ndim + 1 else tensor.numpy()[None])
