"""A trained attentive head: apply it, save it, load it; one file holds the heads of all seeds.

Shapes: n rows, T tokens (class token first), D width, C classes, S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from pa.data.files import replacing
from pa.data.store.reader import Store
from pa.errors import CheckpointError, MismatchError, MissingError, PaError
from pa.probe.attentive.heads import BN_MEAN, BN_VAR, Geometry, Heads
from pa.probe.attentive.tokens import REPRESENTATION
from pa.probe.tensorfile import read_tensors, tensor_bytes

HEAD_FORMAT = "2"
KIND = "attentive"
ROWS_AT_ONCE = 256

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AttentiveHead:
    """One head over `classes`; made for the tokens of the store with this `fingerprint`.

    `tensors` are its numbers by name, float32: `query` (D,), gains, shifts, weights (D, D) and
    biases of query, key, value and out, `bn_mean` and `bn_var` (D,), `weight` (C, D), `bias` (C,).
    """

    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    fingerprint: str
    geometry: Geometry
    representation: str = REPRESENTATION
    store_checksum: str | None = None

    @property
    def width(self) -> int:
        return int(self.tensors["weight"].shape[1])

    def logits(self, tokens: npt.NDArray[np.floating]) -> Floats:
        """Class scores (n, C) of class and patch tokens (n, T, D), the class token first, as
        `np.concatenate([cls[:, None], patch], axis=1)`.

        The BatchNorm uses its running statistics, whatever the evaluation used. Raises
        `MismatchError` for another shape.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.width or tokens.shape[1] < 2:
            raise MismatchError(
                f"this head reads class and patch tokens of shape (n, 1 + L, {self.width}), not "
                f"{tokens.shape}."
            )
        statistics = {name: self.tensors[name][None] for name in (BN_MEAN, BN_VAR)}
        parameters = {n: t[None] for n, t in self.tensors.items() if n not in statistics}
        heads = Heads(parameters, statistics, self.geometry)
        blocks = torch.split(torch.from_numpy(np.ascontiguousarray(tokens)), ROWS_AT_ONCE)
        with torch.no_grad():
            each = [heads.logits(block[:, 0], block[:, 1:])[0] for block in blocks]
        found: Floats = torch.cat(each).numpy()
        return found

    def probabilities(self, tokens: npt.NDArray[np.floating]) -> Floats:
        """Softmax of the class scores, (n, C)."""
        shares: Floats = torch.from_numpy(self.logits(tokens)).softmax(1).numpy()
        return shares

    def predict(self, tokens: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Class index (n,) of tokens (n, T, D)."""
        predicted: npt.NDArray[np.int64] = self.logits(tokens).argmax(axis=1)
        return predicted

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        save_attentive_heads(path, [self])

    @classmethod
    def load(cls, path: Path) -> AttentiveHead:
        """Read a saved head, the first one of several. Raises as `load_attentive_heads`."""
        return load_attentive_heads(path)[0]


def split_heads(heads: Heads, classes: tuple[str, ...], store: Store) -> list[AttentiveHead]:
    """Heads that were trained side by side as heads of their own, on the CPU."""
    stacked = {name: tensor.detach().cpu() for name, tensor in heads.tensors().items()}
    n = len(stacked["bias"])
    return [
        AttentiveHead(
            {name: tensor[index].clone() for name, tensor in stacked.items()},
            classes,
            store.fingerprint,
            Geometry(
                heads.geometry.attention_heads, heads.geometry.norm_eps, heads.geometry.bn_eps
            ),
            store_checksum=store.checksum,
        )
        for index in range(n)
    ]


def save_attentive_heads(path: Path, heads: Sequence[AttentiveHead]) -> None:
    """Write the heads of all seeds, alike but for their numbers, to one safetensors file.

    Every tensor has the seeds as its first size, (S, …), also where there is one.
    """
    first = heads[0]
    metadata = {
        "format": HEAD_FORMAT,
        "kind": KIND,
        "classes": json.dumps(first.classes, ensure_ascii=False),
        "representation": first.representation,
        "fingerprint": first.fingerprint,
        "store_checksum": first.store_checksum or "",
        "attention_heads": str(first.geometry.attention_heads),
        "norm_eps": repr(first.geometry.norm_eps),
        "bn_eps": repr(first.geometry.bn_eps),
    }
    tensors = {
        name: torch.stack([head.tensors[name] for head in heads]).contiguous()
        for name in first.tensors
    }
    with replacing(path) as partial:
        partial.write_bytes(tensor_bytes(tensors, metadata))


def load_attentive_heads(path: Path) -> tuple[AttentiveHead, ...]:
    """Read the heads of a file. Raises `MissingError`; `CheckpointError` for another kind."""
    if not path.is_file():
        raise MissingError(f"no trained head at {path}. `pa probe attentive` makes one.")
    try:
        tensors, fields = read_tensors(path)
        found = fields.get("kind"), fields.get("format")
        if found != (KIND, HEAD_FORMAT):
            raise CheckpointError(
                f"{path}: a head of kind {found[0]}, format {found[1]}; expected kind {KIND}, "
                f"format {HEAD_FORMAT}, as `pa probe attentive` writes it."
            )
        geometry = Geometry(
            int(fields["attention_heads"]), float(fields["norm_eps"]), float(fields["bn_eps"])
        )
        return tuple(
            AttentiveHead(
                {name: tensor[index] for name, tensor in tensors.items()},
                tuple(json.loads(fields["classes"])),
                fields["fingerprint"],
                geometry,
                fields["representation"],
                fields["store_checksum"] or None,
            )
            for index in range(len(tensors["bias"]))
        )
    except PaError:
        raise
    except (SafetensorError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is not an attentive head of pa ({error}).") from None
