"""A trained attentive head: apply it, save it, load it.

Shapes: n rows, T tokens (class token first), D width, C classes, S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.store.reader import Store
from pa.errors import MismatchError
from pa.probe.attentive.heads import BN_MEAN, BN_VAR, Geometry, Heads
from pa.probe.attentive.tokens import REPRESENTATION
from pa.probe.heads import reading_heads, write_heads

KIND = "attentive"
ROWS_AT_ONCE = 256  # bounds the memory of `logits`

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AttentiveHead:
    """One head over `classes`, for the tokens of a store."""

    # float32, by name: `query` (D,), gains, shifts, weights (D, D) and biases of query, key, value
    # and out, `bn_mean` and `bn_var` (D,), `weight` (C, D), `bias` (C,).
    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    fingerprint: str  # of the training store
    geometry: Geometry
    representation: str = REPRESENTATION
    store_checksum: str | None = None  # of the training store, when the head was trained

    @property
    def width(self) -> int:
        return int(self.tensors["weight"].shape[1])

    def logits(self, tokens: npt.NDArray[np.floating]) -> Floats:
        """Return class scores (n, C) of class and patch tokens (n, T, D), the class token first.

        `np.concatenate([cls[:, None], patch], axis=1)` gives such tokens. The BatchNorm always uses
        its running statistics. Raise `MismatchError` for another shape.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.width or tokens.shape[1] < 2:
            raise MismatchError(
                f"this head reads class and patch tokens of shape (n, 1 + L, {self.width}), not "
                f"{tokens.shape}."
            )
        statistics = {name: self.tensors[name][None] for name in (BN_MEAN, BN_VAR)}
        # Heads have H as axis 0; here H = 1.
        parameters = {n: t[None] for n, t in self.tensors.items() if n not in statistics}
        heads = Heads(parameters, statistics, self.geometry)
        blocks = torch.split(torch.from_numpy(np.ascontiguousarray(tokens)), ROWS_AT_ONCE)
        with torch.no_grad():
            logits = [heads.logits(block[:, 0], block[:, 1:])[0] for block in blocks]  # (B, C)
        scores: Floats = torch.cat(logits).numpy()
        return scores

    def probabilities(self, tokens: npt.NDArray[np.floating]) -> Floats:
        """Return the softmax of the class scores, (n, C)."""
        shares: Floats = torch.from_numpy(self.logits(tokens)).softmax(1).numpy()
        return shares

    def predict(self, tokens: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Return class indices (n,) of tokens (n, T, D)."""
        predicted: npt.NDArray[np.int64] = self.logits(tokens).argmax(axis=1)
        return predicted

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        save_attentive_heads(path, [self])

    @classmethod
    def load(cls, path: Path) -> AttentiveHead:
        """Read the first head of a file. Raise as `load_attentive_heads`."""
        return load_attentive_heads(path)[0]


def split_heads(heads: Heads, classes: tuple[str, ...], store: Store) -> list[AttentiveHead]:
    """Separate heads that were trained together, on the CPU."""
    stacked = {name: tensor.detach().cpu() for name, tensor in heads.tensors().items()}
    geometry = replace(heads.geometry, dtype=torch.float32)
    return [
        AttentiveHead(
            {name: tensor[index].clone() for name, tensor in stacked.items()},
            classes,
            store.fingerprint,
            geometry,
            store_checksum=store.checksum,
        )
        for index in range(len(stacked["bias"]))
    ]


def save_attentive_heads(path: Path, heads: Sequence[AttentiveHead]) -> None:
    """Write the heads of all seeds, which differ only in their numbers, to one safetensors file.

    Axis 0 of every tensor is the seed, (S, …), also for one head.
    """
    first = heads[0]
    write_heads(
        path,
        KIND,
        {name: torch.stack([head.tensors[name] for head in heads]) for name in first.tensors},
        first.classes,
        first.representation,
        first.fingerprint,
        first.store_checksum,
        attention_heads=str(first.geometry.attention_heads),
        norm_eps=repr(first.geometry.norm_eps),
        bn_eps=repr(first.geometry.bn_eps),
    )


def load_attentive_heads(path: Path) -> tuple[AttentiveHead, ...]:
    """Read the heads of a file. Raise `MissingError`, or `CheckpointError` for another file."""
    with reading_heads(path, KIND) as (tensors, fields):
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
