"""The interface of an encoder: a frozen network, its transform and the origin of its weights.

B: regions in a batch, L: patch tokens, D: width, P: projected width, Z: bottleneck width,
K: chosen blocks, S: side of the input, H, W: input pixels.
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
    """Representations of B regions; None for those that were not requested or do not exist."""

    cls: Tensor | None = None  # (B, D) class token after the final norm
    pooled: Tensor | None = None  # (B, D) mean of `patch`, or timm's pooled vector (B, P)
    patch: Tensor | None = None  # (B, L, D) patch tokens after the final norm
    projected: Tensor | None = None  # (B, P) output of the pretraining projector
    bottleneck: Tensor | None = None  # (B, Z) unit vector before the projector's prototypes
    layers: Tensor | None = None  # (B, K, L, D) raw patch tokens of the chosen blocks
    layers_cls: Tensor | None = None  # (B, K, D) their class tokens
    layers_pooled: Tensor | None = None  # (B, K, D) their mean patch tokens

    def __getitem__(self, representation: str) -> Tensor:
        value = getattr(self, representation, None)
        if not isinstance(value, Tensor):
            raise KeyError(representation)
        return value


@dataclass(frozen=True)
class EncoderSpec:
    """Provenance of an encoder: all properties that determine its features."""

    name: str
    weights_sha256: str  # of the file, or of the tensors of downloaded weights
    architecture: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # switches, branch, layers, precision

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Encoder(ABC):
    """A frozen network in eval mode; `checkpoint` is the file of its weights."""

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
        """Return the network, to move or cast it."""

    @property
    @abstractmethod
    def representations(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape per region of all representations at the native input size."""

    def representations_at(self, size: int) -> dict[str, tuple[int, ...]]:
        """Return name and shape per region of all representations for inputs of `size` pixels.

        Raises `UsageError` if the encoder does not accept this size.
        """
        if size != self.transform.size:
            native = f"{self.transform.size}x{self.transform.size}"
            raise UsageError(f"{self.name} takes {native} images only; found {size}x{size}.")
        return self.representations

    @abstractmethod
    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        """Encode normalised pixels (B, 3, H, W), float32.

        `want` names the representations to compute, None selects all. The results are float32
        whatever the compute precision. Raises as `require` does.
        """

    def require(self, want: Collection[str]) -> None:
        """Raise `UsageError` or `CheckpointError` if a representation is not available."""
        for representation in want:
            if representation not in self.representations:
                raise UsageError(
                    f"{self.name} has no representation {representation!r}. "
                    f"Available: {', '.join(self.representations)}."
                )

    def project(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply the pretraining projector to vectors (B, D), such as pooled means.

        Return projected (B, P) and bottleneck (B, Z) or None, float32.
        """
        self.require(["projected"])
        raise NotImplementedError(f"{type(self).__name__} names a projector but does not apply it")

    def normalise(self, pixels: Tensor) -> Tensor:
        """Convert uint8 pixels (B, S, S, 3) to normalised float32 (B, 3, S, S) on their device."""
        mean = torch.tensor(self.transform.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.transform.std, device=pixels.device).view(1, 3, 1, 1)
        return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
