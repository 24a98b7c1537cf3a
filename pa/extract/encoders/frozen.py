"""The encoder that all families share: a trunk that computes tokens, and an optional projector.

B: regions, L: patch tokens, D: width, K: chosen blocks, P: projected width, Z: bottleneck width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pa.data.images import Transform
from pa.errors import PaError, UsageError
from pa.extract.encoders.base import Encoder, EncoderSpec, Features

# Representations of the chosen blocks.
LAYERS = frozenset({"layers", "layers_cls", "layers_pooled"})

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Tokens(NamedTuple):
    """Output of a trunk: tokens after the final norm, and raw tokens of the chosen blocks."""

    cls: Tensor | None  # (B, D)
    patch: Tensor  # (B, L, D)
    layers: Tensor | None  # (B, K, L, D)
    layers_cls: Tensor | None = None  # (B, K, D)
    pooled: Tensor | None = None  # (B, P), the network's pooled vector; None = mean of `patch`


def stack_layers(
    blocks: Sequence[Tensor | tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor | None]:
    """Stack the patch tokens (B, K, L, D) and the first prefix tokens (B, K, D) of K blocks.

    Each block is its patch tokens (B, L, D), paired with its prefix tokens (B, N, D) if it has any;
    without prefix tokens the second result is None.
    """
    pairs = [block if isinstance(block, tuple) else (block, None) for block in blocks]
    first = [prefix[:, 0] for _, prefix in pairs if prefix is not None]
    return torch.stack([patches for patches, _ in pairs], dim=1), (
        torch.stack(first, dim=1) if first else None
    )


class Trunk(nn.Module):
    """A network without its head."""

    size: int  # native side in pixels
    width: int  # D
    pooled_width: int = 0  # width of `pooled`; 0 = width of the tokens
    n_patches: int  # L at the native size
    has_cls: bool
    layers: tuple[int, ...]  # the K chosen blocks
    channels_last: bool = False  # memory format of a convolutional network

    @abstractmethod
    def n_patches_at(self, size: int) -> int:
        """Return the number of patch tokens of a square input, or raise `UsageError`."""

    @abstractmethod
    def tokens(self, pixels: Tensor, with_layers: bool) -> Tokens:
        """Encode pixels (B, 3, H, W) that have the dtype and device of the weights."""

    def finish(self) -> None:
        """Complete the module once its weights are loaded."""

    def forward(self, pixels: Tensor, with_layers: bool = False) -> Tokens:
        return self.tokens(pixels, with_layers)


class Projector(nn.Module):
    """A pretraining projector."""

    out_width: int  # P
    bottleneck_width: int  # Z, 0 without a bottleneck

    def finish(self) -> None:
        """Complete the module once its weights are loaded."""

    @abstractmethod
    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Project vectors (B, D) to (B, P), with the bottleneck (B, Z) if the projector has one."""


class _Network(nn.Module):
    def __init__(self, trunk: Trunk, projector: Projector | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.projector = projector


class FrozenEncoder(Encoder):
    """Trunk and projector in eval mode, without gradients.

    The trunk computes in the compute precision; the projector, which has one vector per region as
    its input, in float32. `absent` maps an unavailable representation to the error to raise.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        transform: Transform,
        trunk: Trunk,
        projector: Projector | None = None,
        absent: Mapping[str, PaError] | None = None,
    ) -> None:
        super().__init__(spec, transform)
        self._network = _Network(trunk, projector).eval().requires_grad_(False)
        self._absent = dict(absent or {})

    def to(self, device: str | torch.device, compute: str) -> FrozenEncoder:
        """Move the network and set the compute precision of the trunk: fp32, bf16 or fp16."""
        if compute not in DTYPES:
            raise UsageError(f"unknown compute format {compute!r}. Known: {', '.join(DTYPES)}.")
        try:
            self._network.to(device)
        except (RuntimeError, AssertionError) as error:
            line = str(error).splitlines()[0]
            raise UsageError(f"cannot use device {str(device)!r}: {line}") from None
        trunk = self._network.trunk
        trunk.to(dtype=DTYPES[compute])
        if trunk.channels_last:  # faster convolutions on a CPU
            trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @property
    def module(self) -> nn.Module:
        return self._network

    @property
    def representations(self) -> dict[str, tuple[int, ...]]:
        return self._shapes(self._network.trunk.n_patches)

    def representations_at(self, size: int) -> dict[str, tuple[int, ...]]:
        return self._shapes(self._network.trunk.n_patches_at(size))

    def _shapes(self, n_patches: int) -> dict[str, tuple[int, ...]]:
        trunk, projector = self._network.trunk, self._network.projector
        shapes: dict[str, tuple[int, ...]] = {"cls": (trunk.width,)} if trunk.has_cls else {}
        pooled_width = trunk.pooled_width or trunk.width
        shapes |= {"pooled": (pooled_width,), "patch": (n_patches, trunk.width)}
        if projector is not None:
            shapes["projected"] = (projector.out_width,)
            if projector.bottleneck_width:
                shapes["bottleneck"] = (projector.bottleneck_width,)
        if trunk.layers:
            shapes["layers"] = (len(trunk.layers), n_patches, trunk.width)
            if trunk.has_cls:
                shapes["layers_cls"] = (len(trunk.layers), trunk.width)
            shapes["layers_pooled"] = (len(trunk.layers), trunk.width)
        return shapes

    def require(self, want: Collection[str]) -> None:
        for representation in want:
            if representation in self._absent:
                error = self._absent[representation]
                raise type(error)(str(error))
        super().require(want)

    @torch.no_grad()
    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        want = frozenset(self.representations if want is None else want)
        self.require(want)
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise UsageError(
                "expected normalised pixels of shape (B, 3, H, W), floating point; found "
                f"{tuple(pixels.shape)}, {str(pixels.dtype).removeprefix('torch.')}. "
                "Encoder.normalise converts them from uint8 (B, S, S, 3)."
            )
        weight = next(self._network.trunk.parameters())
        layout = torch.channels_last if self._network.trunk.channels_last else torch.preserve_format
        pixels = pixels.to(device=weight.device, dtype=weight.dtype, memory_format=layout)
        tokens = self._network.trunk(pixels, with_layers=bool(want & LAYERS))
        # Averages are taken in float32, whatever the compute precision.
        patch = tokens.patch.float() if want & {"patch", "pooled"} else tokens.patch
        pooled = None
        if "pooled" in want:
            pooled = patch.mean(dim=1) if tokens.pooled is None else tokens.pooled.float()  # (B, D)
        # A copy, because a view of a class token would keep all tokens in memory.
        cls = None if tokens.cls is None else tokens.cls.float().clone()
        projected = bottleneck = None
        if cls is not None and want & {"projected", "bottleneck"}:
            projected, bottleneck = self.project(cls)
        layers = None if tokens.layers is None else tokens.layers.float()
        values = {
            "cls": cls,
            "pooled": pooled,
            "patch": patch,
            "projected": projected,
            "bottleneck": bottleneck,
            "layers": layers,
            "layers_cls": None if tokens.layers_cls is None else tokens.layers_cls.float(),
            "layers_pooled": None if layers is None else layers.mean(dim=2),  # (B, K, D)
        }
        return Features(**{name: values[name] for name in want})

    @torch.no_grad()
    def project(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        self.require(["projected"])
        projector = self._network.projector
        if projector is None:
            return super().project(vectors)
        weight = next(projector.parameters())
        projected, bottleneck = projector(vectors.to(weight.device, weight.dtype))
        return projected.float(), None if bottleneck is None else bottleneck.float()


def check_layers(name: str, layers: tuple[int, ...], depth: int) -> None:
    """Raise `UsageError` if a block number is out of range or the numbers do not ascend."""
    numbers = ", ".join(map(str, layers))
    if any(not 0 <= layer < depth for layer in layers):
        raise UsageError(f"{name} has blocks 0 to {depth - 1}; found layers {numbers}.")
    if list(layers) != sorted(set(layers)):
        raise UsageError(f"layers must ascend without repeats; found {numbers}.")
