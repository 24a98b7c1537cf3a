"""The pretraining projectors: MoCo v3's, and the prototypes of DINO and iBOT.

The widths are read from the tensors. A missing tensor has width 1 here; the comparison of keys then
reports it.

B: vectors, D: their width, M: hidden width, P: output width, Z: bottleneck width, C: prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pa.extract.encoders.base import Projector

Tensors = Mapping[str, Tensor]


def _side(tensors: Tensors, key: str, axis: int) -> int:
    """Return the rows (axis 0) or columns (axis -1) of a matrix; 1 if it is missing."""
    return tensors[key].shape[axis] if key in tensors and tensors[key].ndim else 1


class MocoProjector(Projector):
    """base_encoder.head of MoCo v3: three bias-free layers, the last norm without affine.

    Evaluation mode: running statistics. The result is not normalised (moco/builder.py).
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        hidden = _side(tensors, "0.weight", 0)  # M
        self.out_width = _side(tensors, "6.weight", 0)
        layers = (
            nn.Linear(_side(tensors, "0.weight", -1), hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, self.out_width, bias=False),
            nn.BatchNorm1d(self.out_width, affine=False),
        )
        # Registered without a name, so that the keys equal those of the file: 0.weight …
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def forward(self, vectors: Tensor) -> tuple[Tensor, None]:
        for layer in self.children():
            vectors = layer(vectors)
        return vectors, None  # (B, P)


class Prototypes(nn.Module):
    """The last layer of DINO and iBOT, (C, Z): weight-normalised, or plain in some DINO files."""

    def __init__(self, tensors: Tensors, width: int) -> None:
        super().__init__()
        if "last_layer.weight" in tensors:
            n = _side(tensors, "last_layer.weight", 0)
            self.weight = nn.Parameter(torch.empty(n, width))
        else:
            n = _side(tensors, "last_layer.weight_v", 0)
            self.weight_g = nn.Parameter(torch.empty(n, 1))  # lengths
            self.weight_v = nn.Parameter(torch.empty(n, width))  # directions

    def matrix(self) -> Tensor:
        """Return the prototypes (C, Z), float64."""
        if hasattr(self, "weight"):
            return self.weight.detach().double()
        direction = self.weight_v.detach().double()
        length = self.weight_g.detach().double()
        return length * F.normalize(direction, dim=1)


class PrototypeProjector(Projector):
    """DINOHead and iBOTHead on class tokens: MLP, unit length (the bottleneck z), prototypes W.

    The published representation is the C logits W z. This projector returns R z of width Z with
    R = (WᵀW)^½ instead: since (R z)·(R z') = zᵀWᵀW z', all inner products, lengths and cosines
    equal those of the logits.
    """

    root: Tensor

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        width, hidden = (_side(tensors, "mlp.0.weight", axis) for axis in (-1, 0))  # D, M
        self.out_width = self.bottleneck_width = _side(tensors, "mlp.4.weight", 0)  # Z
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, self.out_width),
        )
        self.last_layer: Prototypes | None = Prototypes(tensors, self.out_width)

    def finish(self) -> None:
        """Replace the prototypes (64 MB in DINO's file) by the square root R (Z, Z)."""
        if self.last_layer is not None:
            matrix = self.last_layer.matrix()  # (C, Z)
            self.register_buffer("root", square_root(matrix.T @ matrix).float())  # (Z, Z)
            self.last_layer = None

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        bottleneck = F.normalize(self.mlp(vectors), dim=-1)  # (B, Z), eps 1e-12
        return bottleneck @ self.root.T, bottleneck  # (B, Z) each


def square_root(gram: Tensor) -> Tensor:
    """Return the symmetric R with RᵀR = gram (Z, Z), float64.

    The symmetric root is unique: a Cholesky factor would need full rank, and eigenvectors alone
    have arbitrary signs, so stores would differ between machines.
    """
    values, vectors = torch.linalg.eigh(gram)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
