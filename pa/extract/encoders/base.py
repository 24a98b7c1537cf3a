"""What every encoder is: a frozen network, its transform, and where its weights came from.

Shapes: B regions in a batch, L patch tokens, D width, P projected width, H and W input pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pa.data.images import Transform
from pa.errors import UsageError


@dataclass(frozen=True)
class Features:
    """What an encoder computed for B regions. What was not asked for, or is not there, is None.

    cls (B, D) and patch (B, L, D) are taken after the final norm; pooled is the mean of `patch`
    (B, D), or timm's own pooled vector (B, P); projected (B, P) is the output of the pretraining
    projector, bottleneck (B, Z) the unit vector in front of its prototypes; layers (B, K, L, D)
    are raw outputs of K chosen blocks, layers_cls (B, K, D) their class tokens, layers_pooled
    (B, K, D) their mean patch token.
    """

    cls: Tensor | None = None
    pooled: Tensor | None = None
    patch: Tensor | None = None
    projected: Tensor | None = None
    bottleneck: Tensor | None = None
    layers: Tensor | None = None
    layers_cls: Tensor | None = None
    layers_pooled: Tensor | None = None

    def __getitem__(self, representation: str) -> Tensor:
        value = getattr(self, representation, None)
        if not isinstance(value, Tensor):
            raise KeyError(representation)
        return value


@dataclass(frozen=True)
class EncoderSpec:
    """Provenance of an encoder: everything about it that determines its features."""

    name: str
    weights_sha256: str
    architecture: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "architecture": self.architecture,
            "options": self.options,
        }


class Encoder(ABC):
    """A frozen network in eval mode; `checkpoint` is the file that its weights were read from."""

    checkpoint: Path | None = None

    def __init__(self, spec: EncoderSpec, transform: Transform) -> None:
        self.spec = spec
        self.transform = transform

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    @abstractmethod
    def module(self) -> torch.nn.Module:
        """The network, so that it can be moved and cast."""

    @property
    @abstractmethod
    def representations(self) -> dict[str, tuple[int, ...]]:
        """Name and shape per region of everything this encoder can give at its native size."""

    def representations_at(self, size: int) -> dict[str, tuple[int, ...]]:
        """Name and shape per region of everything at another side of the input, in pixels.

        Raises `UsageError` where the encoder takes no such images.
        """
        if size != self.transform.size:
            native = f"{self.transform.size}x{self.transform.size}"
            raise UsageError(f"{self.name} takes {native} images only; found {size}x{size}.")
        return self.representations

    @abstractmethod
    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        """Encode normalised pixels (B, 3, H, W), float32.

        `want` names the representations to compute; None computes all there are. The results are
        float32 whatever the network computes in. Raises what `require` raises.
        """

    def require(self, want: Collection[str]) -> None:
        """Raise where this encoder cannot give one of the representations; say what to do."""
        for representation in want:
            if representation not in self.representations:
                raise UsageError(
                    f"{self.name} gives no {representation!r}. "
                    f"It gives: {', '.join(self.representations)}."
                )

    def project(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply the pretraining projector to vectors (B, D), for example pooled means.

        Returns (projected (B, P), bottleneck (B, Z) or None), float32.
        """
        self.require(["projected"])
        raise NotImplementedError(f"{type(self).__name__} names a projector but does not apply it")

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels (B, S, S, 3) into normalised float32 (B, 3, S, S) on their device."""
        mean = torch.tensor(self.transform.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.transform.std, device=pixels.device).view(1, 3, 1, 1)
        return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
