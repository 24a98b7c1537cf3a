"""Trained heads and their file format: one safetensors file holds the heads of all seeds.

Shapes: n rows, C classes, S seeds.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from pa.data.files import replacing
from pa.errors import CheckpointError, MissingError, PaError
from pa.probe.tensorfile import read_tensors, tensor_bytes

HEAD_FORMAT = "2"  # raised when the names or the shapes of the tensors change

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Head(ABC):
    """A classifier over `classes` for one representation of a store; subclasses are dataclasses."""

    kind: ClassVar[str]

    classes: tuple[str, ...]
    representation: str  # such as "cls" or "cls+pooled"
    fingerprint: str  # of the training store
    store_checksum: str | None  # of the training store, when the head was trained

    @abstractmethod
    def logits(self, features: npt.NDArray[Any]) -> Floats:
        """Return class scores (n, C) of features. Raise `MismatchError` for another shape."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a file by name; "weight" is (C, D) and "bias" (C,)."""

    @abstractmethod
    def constants(self) -> dict[str, str]:
        """Return the other values of a file: metadata of safetensors are strings."""

    @classmethod
    @abstractmethod
    def of(cls, tensors: dict[str, Tensor], fields: Mapping[str, str], **origin: Any) -> Self:
        """Return the head of one seed; `origin` are classes, representation and store."""

    def probabilities(self, features: npt.NDArray[Any]) -> Floats:
        """Return the softmax of the class scores, (n, C)."""
        logits = self.logits(features)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))  # at most 1: no overflow
        probabilities: Floats = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, features: npt.NDArray[Any]) -> Ints:
        """Return class indices (n,) of features."""
        predicted: Ints = self.logits(features).argmax(axis=1)
        return predicted

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        save_heads(path, [self])

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the first head of a file. Raise as `load_all`."""
        return cls.load_all(path)[0]

    @classmethod
    def load_all(cls, path: Path) -> tuple[Self, ...]:
        """Read the heads of all seeds.

        Raise `MissingError`, or `CheckpointError` for a file of other contents.
        """
        with _unreadable(path, f"{cls.kind} heads"):
            tensors, fields = _read(path)
            if fields["kind"] != cls.kind:
                raise CheckpointError(
                    f"{path} holds {fields['kind']} heads, expected {cls.kind} heads."
                )
            if fields["format"] != HEAD_FORMAT:
                raise CheckpointError(
                    f"{path} has head format {fields['format']}, this version reads {HEAD_FORMAT}."
                )
            # A single linear head is stored without the axis of seeds.
            if tensors["weight"].ndim == 2:
                tensors = {name: tensor[None] for name, tensor in tensors.items()}
            if tensors["weight"].shape[:-1] != tensors["bias"].shape or tensors["bias"].ndim != 2:
                raise ValueError(f"a tensor of shape {tuple(tensors['weight'].shape)}")
            origin = {
                "classes": tuple(json.loads(fields["classes"])),
                "representation": fields["representation"],
                "fingerprint": fields["fingerprint"],
                "store_checksum": fields["store_checksum"] or None,
            }
            return tuple(
                cls.of({name: tensor[index] for name, tensor in tensors.items()}, fields, **origin)
                for index in range(len(tensors["bias"]))
            )


def save_heads(path: Path, heads: Sequence[Head]) -> None:
    """Write the heads of all seeds, which differ only in their numbers, to one safetensors file.

    Axis 0 of every tensor is the seed, (S, …); a single linear head has no such axis. Raise
    `StorageError`; the file is written whole or not at all.
    """
    # All heads of a file have the same classes, store and constants; those of the first count.
    first, by_seed = heads[0], [head.tensors() for head in heads]
    tensors = {name: torch.stack([named[name] for named in by_seed]) for name in by_seed[0]}
    if len(heads) == 1 and first.kind == "linear":
        tensors = by_seed[0]
    metadata = {
        "format": HEAD_FORMAT,
        "kind": first.kind,
        "classes": json.dumps(first.classes, ensure_ascii=False),
        "representation": first.representation,
        "fingerprint": first.fingerprint,
        "store_checksum": first.store_checksum or "",
        **first.constants(),
    }
    with replacing(path) as partial:
        partial.write_bytes(tensor_bytes(tensors, metadata))


def kind_of(path: Path) -> str:
    """Return the kind of heads in a file. Raise `MissingError` or `CheckpointError`."""
    with _unreadable(path, "trained heads"):
        return _read(path)[1]["kind"]


@contextlib.contextmanager
def _unreadable(path: Path, content: str) -> Iterator[None]:
    """Raise `CheckpointError` for a file that is damaged or has other contents."""
    try:
        yield
    except PaError:
        raise
    except (SafetensorError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is not a file of {content} ({error}).") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise MissingError(
            f"no trained head at {path}. `pa probe linear` and `pa probe attentive` train heads."
        )
    return read_tensors(path)
