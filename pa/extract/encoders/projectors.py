"""The pretraining projectors: MoCo v3's, and the prototypes of DINO and iBOT.

B: vectors, D: their width, M: hidden width, P: output width, Z: bottleneck width, C: prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pa.extract.encoders.frozen import Projector


def _rows(tensors: Mapping[str, Tensor], key: str) -> int:
    """Return the rows of a matrix; 1 if it is missing, which the comparison of keys reports."""
    return tensors[key].shape[0] if key in tensors and tensors[key].ndim else 1


def _columns(tensors: Mapping[str, Tensor], key: str) -> int:
    return tensors[key].shape[-1] if key in tensors and tensors[key].ndim else 1


class MocoProjector(Projector):
    """base_encoder.head of MoCo v3: three bias-free layers, the last norm without affine.

    Evaluation mode: running statistics. The result is not normalised (moco/builder.py).
    """

    bottleneck_width = 0

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.out_width = out
        layers = (
            nn.Linear(width, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out, bias=False),
            nn.BatchNorm1d(out, affine=False),
        )
        # Registered without a name, so that the keys equal those of the file: 0.weight …
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def forward(self, vectors: Tensor) -> tuple[Tensor, None]:
        for layer in self.children():
            vectors = layer(vectors)
        return vectors, None  # (B, P)


def moco_projector(tensors: Mapping[str, Tensor]) -> MocoProjector:
    """Create MoCo v3's projector with the widths of the tensors."""
    return MocoProjector(
        width=_columns(tensors, "0.weight"),
        hidden=_rows(tensors, "0.weight"),
        out=_rows(tensors, "6.weight"),
    )


class PlainPrototypes(nn.Module):
    """A bias-free linear layer, as in some released DINO files."""

    def __init__(self, n_prototypes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_prototypes, width))

    def matrix(self) -> Tensor:
        return self.weight.detach().double()  # (C, Z)


class WeightNormPrototypes(nn.Module):
    """A weight-normalised layer: length weight_g times direction weight_v, row by row."""

    def __init__(self, n_prototypes: int, width: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.empty(n_prototypes, 1))
        self.weight_v = nn.Parameter(torch.empty(n_prototypes, width))

    def matrix(self) -> Tensor:
        direction = self.weight_v.detach().double()
        length = self.weight_g.detach().double()
        return length * F.normalize(direction, dim=1)  # (C, Z)


class PrototypeProjector(Projector):
    """DINOHead and iBOTHead on class tokens: MLP, unit length (the bottleneck z), prototypes W.

    The published representation is the C logits W z. This projector returns R z of width Z with
    R = (WᵀW)^½ instead: since (R z)·(R z') = zᵀWᵀW z', all inner products, lengths and cosines
    equal those of the logits.
    """

    root: Tensor

    def __init__(self, width: int, hidden: int, bottleneck: int, last_layer: nn.Module) -> None:
        super().__init__()
        self.out_width = self.bottleneck_width = bottleneck
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last_layer: nn.Module | None = last_layer

    def finish(self) -> None:
        """Replace the prototypes (64 MB in DINO's file) by the square root R (Z, Z)."""
        if self.last_layer is not None:
            matrix = self.last_layer.matrix()  # type: ignore[operator]
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


def prototype_projector(tensors: Mapping[str, Tensor]) -> PrototypeProjector:
    """Create the head of DINO or iBOT with the widths and the kind of prototypes of the tensors."""
    bottleneck = _rows(tensors, "mlp.4.weight")
    plain = "last_layer.weight" in tensors
    key = "last_layer.weight" if plain else "last_layer.weight_v"
    kind = PlainPrototypes if plain else WeightNormPrototypes
    return PrototypeProjector(
        width=_columns(tensors, "mlp.0.weight"),
        hidden=_rows(tensors, "mlp.0.weight"),
        bottleneck=bottleneck,
        last_layer=kind(_rows(tensors, key), bottleneck),
    )
