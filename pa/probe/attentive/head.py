"""A trained attentive head.

Shapes: n rows, T tokens (class token first), D width, C classes.
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
from pa.probe.attentive.stack import BN_MEAN, BN_VAR, AttentiveStack, Geometry
from pa.probe.attentive.tokens import REPRESENTATION
from pa.probe.heads import Floats, Head

ROWS_AT_ONCE = 256  # bounds the memory of `logits`


@dataclass(frozen=True, eq=False)
class AttentiveHead(Head):
    """One head over `classes`, for the tokens of a store."""

    kind: ClassVar[str] = "attentive"

    # float32, by name: `query` (D,), gains, shifts, weights (D, D) and biases of query, key, value
    # and out, `bn_mean` and `bn_var` (D,), `weight` (C, D), `bias` (C,).
    parameters: dict[str, Tensor]
    geometry: Geometry
    classes: tuple[str, ...]
    fingerprint: str
    representation: str = REPRESENTATION
    store_checksum: str | None = None

    def logits(self, features: npt.NDArray[Any]) -> Floats:
        """Return class scores (n, C) of class and patch tokens (n, T, D), the class token first.

        `np.concatenate([cls[:, None], patch], axis=1)` gives such tokens. The BatchNorm always uses
        its running statistics. Raise `MismatchError` for another shape.
        """
        width = self.parameters["weight"].shape[1]
        if features.ndim != 3 or features.shape[2] != width or features.shape[1] < 2:
            raise MismatchError(
                f"this head reads class and patch tokens of shape (n, 1 + L, {width}), not "
                f"{features.shape}."
            )
        # A stack has H as axis 0; here H = 1.
        tensors = {name: tensor[None] for name, tensor in self.parameters.items()}
        statistics = {name: tensors.pop(name) for name in (BN_MEAN, BN_VAR)}
        stack = AttentiveStack(tensors, statistics, self.geometry)
        blocks = torch.split(torch.from_numpy(np.ascontiguousarray(features)), ROWS_AT_ONCE)
        with torch.no_grad():
            logits = [stack.logits(block[:, 0], block[:, 1:])[0] for block in blocks]  # (B, C)
        scores: Floats = torch.cat(logits).numpy()
        return scores

    def probabilities(self, features: npt.NDArray[Any]) -> Floats:
        """Return the softmax of the class scores, (n, C)."""
        shares: Floats = torch.from_numpy(self.logits(features)).softmax(1).numpy()
        return shares

    def tensors(self) -> dict[str, Tensor]:
        return self.parameters

    def constants(self) -> dict[str, str]:
        geometry = self.geometry
        return {
            "attention_heads": str(geometry.attention_heads),
            "norm_eps": repr(geometry.norm_eps),
            "bn_eps": repr(geometry.bn_eps),
        }

    @classmethod
    def of(
        cls, tensors: dict[str, Tensor], fields: Mapping[str, str], **origin: Any
    ) -> AttentiveHead:
        return cls(
            tensors,
            Geometry(
                int(fields["attention_heads"]), float(fields["norm_eps"]), float(fields["bn_eps"])
            ),
            **origin,
        )
