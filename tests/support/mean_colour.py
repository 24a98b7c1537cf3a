"""An encoder whose features are known by arithmetic: the mean colour of each quarter."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from pa.data.images import Transform
from pa.extract.encoders.base import Encoder, EncoderSpec, Features


class MeanColour(Encoder):
    """patch (B, 4, 3) = mean RGB in [0, 1] of the four quarters; pooled (B, 3) = their mean."""

    def __init__(self, size: int = 32, weights: str = "0" * 64, name: str = "mean-colour") -> None:
        transform = Transform(size, size, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        super().__init__(EncoderSpec(name, weights), transform)
        self._module = nn.Linear(1, 1)
        self.batches: list[int] = []

    @property
    def module(self) -> nn.Module:
        return self._module

    @property
    def representations(self) -> dict[str, tuple[int, ...]]:
        return {"pooled": (3,), "patch": (4, 3)}

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        self.batches.append(len(pixels))
        half = self.transform.size // 2
        quarters = nn.functional.avg_pool2d(pixels, half).flatten(2).transpose(1, 2)
        return Features(pooled=quarters.mean(1), patch=quarters)


class Exploding(MeanColour):
    """Gives features that are not finite from its second batch on."""

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        features = super().encode(pixels, want)
        if len(self.batches) > 1:
            return Features(pooled=features["pooled"] / torch.zeros(1), patch=features.patch)
        return features
