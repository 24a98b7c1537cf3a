"""A trained linear head: apply it, save it, load it; one file holds the heads of all seeds.

Shapes: n rows, D width, C classes, S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError

from pa.data.files import replacing
from pa.errors import CheckpointError, MismatchError, MissingError, PaError
from pa.probe.tensorfile import read_tensors, tensor_bytes

HEAD_FORMAT = "2"
KIND = "linear"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Statistics (D,), float32, of a BatchNorm without affine before a head."""

    mean: Floats
    var: Floats
    eps: float

    def __call__(self, features: Floats) -> Floats:
        normed: Floats = (features - self.mean) / np.sqrt(self.var + np.float32(self.eps))
        return normed


@dataclass(frozen=True, eq=False)
class LinearHead:
    """`weight` (C, D) and `bias` (C,), float32, over `classes`; made for the features
    `representation` of the store with this `fingerprint`; `norm` comes before it, if any.
    `store_checksum` is `Store.checksum` at the time."""

    weight: Floats
    bias: Floats
    classes: tuple[str, ...]
    representation: str
    fingerprint: str
    norm: BatchNorm | None = None
    store_checksum: str | None = None

    def logits(self, features: Floats) -> Floats:
        """Class scores (n, C) of features (n, D). Raises `MismatchError` for another width."""
        width = self.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            raise MismatchError(
                f"this head reads features of shape (n, {width}), not {features.shape}."
            )
        if self.norm is not None:
            features = self.norm(features)
        return features @ self.weight.T + self.bias

    def probabilities(self, features: Floats) -> Floats:
        """Softmax of the class scores, (n, C)."""
        logits = self.logits(features)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Floats = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, features: Floats) -> npt.NDArray[np.int64]:
        """Class index (n,) of features (n, D)."""
        predicted: npt.NDArray[np.int64] = self.logits(features).argmax(axis=1)
        return predicted

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        save_heads(path, [self])

    @classmethod
    def load(cls, path: Path) -> LinearHead:
        """Read a saved head, the first one of several. Raises as `load_heads`."""
        return load_heads(path)[0]


def save_heads(path: Path, heads: Sequence[LinearHead]) -> None:
    """Write the heads of all seeds, alike but for their numbers, to one safetensors file.

    One head gives `weight` (C, D) and `bias` (C,); S > 1 give (S, C, D) and (S, C). With a
    BatchNorm, `bn_mean` and `bn_var` are (D,) or (S, D).
    """
    first = heads[0]
    metadata = {
        "format": HEAD_FORMAT,
        "kind": KIND,
        "classes": json.dumps(first.classes, ensure_ascii=False),
        "representation": first.representation,
        "fingerprint": first.fingerprint,
        "store_checksum": first.store_checksum or "",
    }
    tensors = {
        "weight": _stacked([head.weight for head in heads]),
        "bias": _stacked([head.bias for head in heads]),
    }
    norms = [head.norm for head in heads if head.norm is not None]
    if norms:
        metadata["bn_eps"] = repr(norms[0].eps)
        tensors["bn_mean"] = _stacked([norm.mean for norm in norms])
        tensors["bn_var"] = _stacked([norm.var for norm in norms])
    data = tensor_bytes({name: torch.from_numpy(a) for name, a in tensors.items()}, metadata)
    with replacing(path) as partial:
        partial.write_bytes(data)


def load_heads(path: Path) -> tuple[LinearHead, ...]:
    """Read the heads of a file. Raises `MissingError`; `CheckpointError` for what is no head."""
    if not path.is_file():
        raise MissingError(f"no trained head at {path}. `pa probe linear` makes one.")
    try:
        tensors, fields = read_tensors(path)
        if (kind := fields.get("kind", KIND)) != KIND:
            raise CheckpointError(f"{path} holds {kind} heads, expected {KIND} ones.")
        if fields.get("format") != HEAD_FORMAT:
            raise CheckpointError(
                f"{path} is not a head that this version reads: head format "
                f"{fields.get('format')}, this version reads {HEAD_FORMAT}."
            )
        return _heads({name: tensor.numpy() for name, tensor in tensors.items()}, fields)
    except PaError:
        raise
    except (SafetensorError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is not a linear head of pa ({error}).") from None


def kind_of(path: Path) -> str:
    """The kind of heads in a file, "linear" unless it says otherwise. Raises as `load_heads`."""
    if not path.is_file():
        raise MissingError(f"no trained head at {path}. `pa probe linear` makes one.")
    try:
        return str(read_tensors(path)[1].get("kind", KIND))
    except (SafetensorError, LookupError, ValueError) as error:
        if isinstance(error, PaError):
            raise
        raise CheckpointError(f"{path} is not a head of pa ({error}).") from None


def _heads(tensors: dict[str, Any], fields: dict[str, str]) -> tuple[LinearHead, ...]:
    weight = _each(tensors["weight"], 2)
    bias = _each(tensors["bias"], 1)
    norms: list[BatchNorm | None] = [None] * len(weight)
    if "bn_mean" in tensors:
        eps = float(fields["bn_eps"])
        pairs = zip(_each(tensors["bn_mean"], 1), _each(tensors["bn_var"], 1), strict=True)
        norms = [BatchNorm(mean, var, eps) for mean, var in pairs]
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


def _stacked(arrays: Sequence[Floats]) -> Floats:
    return np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.stack(arrays))


def _each(tensor: Any, ndim: int) -> list[Any]:
    if tensor.ndim not in (ndim, ndim + 1):
        raise ValueError(f"a tensor of shape {tensor.shape}")
    return list(tensor if tensor.ndim == ndim + 1 else tensor[None])
