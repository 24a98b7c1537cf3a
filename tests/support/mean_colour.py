"""An encoder whose features are known by arithmetic: the mean colour of each quarter."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from pa.data.images import Transform
from pa.extract.encoders.base import Encoder, EncoderSpec, Features, Tokens, Trunk


class Quarters(Trunk):
    """Patch tokens (B, 4, 3): the mean RGB of the four quarters."""

    width = 3
    has_cls = False

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.zeros(1))  # states device and dtype

    def n_patches_at(self, size: int) -> int:
        return 4

    def forward(self, pixels: Tensor, with_layers: bool = False) -> Tokens:
        means = nn.functional.avg_pool2d(pixels, self.size // 2)  # (B, 3, 2, 2)
        return Tokens(None, means.flatten(2).transpose(1, 2))


class MeanColour(Encoder):
    """patch (B, 4, 3) = mean RGB in [0, 1] of the four quarters; pooled (B, 3) = their mean."""

    def __init__(self, size: int = 32, weights: str = "0" * 64, name: str = "mean-colour") -> None:
        transform = Transform(size, size, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        super().__init__(EncoderSpec(name, weights), transform, Quarters(size))
        self.batches: list[int] = []

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        self.batches.append(len(pixels))
        return super().encode(pixels)


class Exploding(MeanColour):
    """Gives features that are not finite from its second batch on."""

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        features = super().encode(pixels, want)
        if len(self.batches) > 1:
            return Features(pooled=features["pooled"] / torch.zeros(1), patch=features.patch)
        return features
