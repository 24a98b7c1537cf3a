"""An encoder: a trunk that computes tokens, an optional projector, and the origin of the weights.

B: regions, L: patch tokens, D: width, K: chosen blocks, P: projected width, Z: bottleneck width,
S: side of the input, H, W: input pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pa.data.images import Transform
from pa.errors import PaError, UsageError

LAYERS = frozenset({"layers", "layers_cls", "layers_pooled"})  # of the chosen blocks
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    options: dict[str, Any] = field(default_factory=dict)  # switches, branch, layers

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Tokens(NamedTuple):
    """Output of a trunk: tokens after the final norm, and raw tokens of the chosen blocks."""

    cls: Tensor | None  # (B, D)
    patch: Tensor  # (B, L, D)
    layers: Tensor | None = None  # (B, K, L, D)
    layers_cls: Tensor | None = None  # (B, K, D)
    pooled: Tensor | None = None  # (B, P), the network's pooled vector; None = mean of `patch`


class Trunk(nn.Module):
    """A network without its head."""

    size: int  # native side in pixels
    width: int  # D
    pooled_width: int = 0  # width of `pooled`; 0 = width of the tokens
    has_cls: bool
    layers: tuple[int, ...] = ()  # the K chosen blocks
    channels_last: bool = False  # memory format of a convolutional network

    @abstractmethod
    def n_patches_at(self, size: int) -> int:
        """Return the number of patch tokens of a square input, or raise `UsageError`."""

    @abstractmethod
    def forward(self, pixels: Tensor, with_layers: bool = False) -> Tokens:
        """Encode pixels (B, 3, H, W) that have the dtype and device of the weights."""


class Projector(nn.Module):
    """A pretraining projector."""

    out_width: int  # P
    bottleneck_width: int = 0  # Z, 0 without a bottleneck

    def finish(self) -> None:
        """Complete the module once its weights are loaded."""

    @abstractmethod
    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Project vectors (B, D) to (B, P), with the bottleneck (B, Z) if the projector has one."""


class Encoder:
    """A frozen network in eval mode, without gradients; `checkpoint` is the file of its weights.

    The trunk computes in the compute precision; the projector, which has one vector per region as
    its input, in float32. `absent` maps an unavailable representation to the error to raise.
    """

    checkpoint: Path | None = None
    compute: str = "fp32"  # precision of the trunk

    def __init__(
        self,
        spec: EncoderSpec,
        transform: Transform,
        trunk: Trunk,
        projector: Projector | None = None,
        absent: Mapping[str, PaError] | None = None,
    ) -> None:
        self.spec = spec
        self.transform = transform
        self._trunk = trunk
        self._projector = projector
        self._absent = dict(absent or {})
        parts = {"trunk": trunk} if projector is None else {"trunk": trunk, "projector": projector}
        self._network = nn.ModuleDict(parts).eval().requires_grad_(False)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def module(self) -> nn.Module:
        """Return the network, to move or cast it."""
        return self._network

    @property
    def device(self) -> torch.device:
        return next(self._network.parameters()).device

    def to(self, device: str | torch.device, compute: str) -> Encoder:
        """Move the network and set the compute precision of the trunk: fp32, bf16 or fp16."""
        try:
            self._network.to(device)
        except (RuntimeError, AssertionError) as error:
            line = str(error).splitlines()[0]
            raise UsageError(f"cannot use device {str(device)!r}: {line}") from None
        self.compute = compute
        self._trunk.to(dtype=DTYPES[compute])
        if self._trunk.channels_last:  # faster convolutions on a CPU
            self._trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @property
    def representations(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape per region of all representations at the native input size."""
        return self.representations_at(self._trunk.size)

    def representations_at(self, size: int) -> dict[str, tuple[int, ...]]:
        """Return name and shape per region of all representations for inputs of `size` pixels.

        Raises `UsageError` if the encoder does not accept this size.
        """
        trunk, projector = self._trunk, self._projector
        width, n_patches, n_layers = trunk.width, trunk.n_patches_at(size), len(trunk.layers)
        # The order is that of the names in messages and in the specs of stores.
        shapes: dict[str, tuple[int, ...]] = {"cls": (width,)} if trunk.has_cls else {}
        shapes |= {"pooled": (trunk.pooled_width or width,), "patch": (n_patches, width)}
        if projector is not None:
            shapes["projected"] = (projector.out_width,)
            if projector.bottleneck_width:
                shapes["bottleneck"] = (projector.bottleneck_width,)
        if n_layers:
            shapes["layers"] = (n_layers, n_patches, width)
            if trunk.has_cls:
                shapes["layers_cls"] = (n_layers, width)
            shapes["layers_pooled"] = (n_layers, width)
        return shapes

    def require(self, want: Collection[str]) -> None:
        """Raise `UsageError` or `CheckpointError` if a representation is not available."""
        available = self.representations
        for representation in want:
            if representation in self._absent:
                # A new object: an error that is raised twice would collect tracebacks.
                error = self._absent[representation]
                raise type(error)(str(error))
            if representation not in available:
                raise UsageError(
                    f"{self.name} has no representation {representation!r}. "
                    f"Available: {', '.join(available)}."
                )

    @torch.no_grad()
    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        """Encode normalised pixels (B, 3, H, W), float32.

        `want` names the representations to compute, None selects all. The results are float32
        whatever the compute precision. Raises as `require` does.
        """
        want = frozenset(self.representations if want is None else want)
        self.require(want)
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise UsageError(
                "expected normalised pixels of shape (B, 3, H, W), floating point; found "
                f"{tuple(pixels.shape)}, {str(pixels.dtype).removeprefix('torch.')}. "
                "Encoder.normalise converts them from uint8 (B, S, S, 3)."
            )
        # The trunk states device and precision; the caller need not know them.
        weight = next(self._trunk.parameters())
        layout = torch.channels_last if self._trunk.channels_last else torch.preserve_format
        pixels = pixels.to(device=weight.device, dtype=weight.dtype, memory_format=layout)
        tokens: Tokens = self._trunk(pixels, with_layers=bool(want & LAYERS))
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
        """Apply the pretraining projector to vectors (B, D), such as pooled means.

        Return projected (B, P) and bottleneck (B, Z) or None, float32.
        """
        self.require(["projected"])
        assert self._projector is not None
        weight = next(self._projector.parameters())
        projected, bottleneck = self._projector(vectors.to(weight.device, weight.dtype))
        return projected.float(), None if bottleneck is None else bottleneck.float()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Convert uint8 pixels (B, S, S, 3) to normalised float32 (B, 3, S, S) on their device."""
        mean = torch.tensor(self.transform.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.transform.std, device=pixels.device).view(1, 3, 1, 1)
        return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def stack_layers(blocks: Sequence[Tensor | tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor | None]:
    """Stack the patch tokens (B, K, L, D) and the first prefix tokens (B, K, D) of K blocks.

    Each block is its patch tokens (B, L, D), paired with its prefix tokens (B, N, D) if it has any;
    without prefix tokens the second result is None.
    """
    pairs = [block if isinstance(block, tuple) else (block, None) for block in blocks]
    first = [prefix[:, 0] for _, prefix in pairs if prefix is not None]
    patches = torch.stack([tokens for tokens, _ in pairs], dim=1)
    return patches, torch.stack(first, dim=1) if first else None


def check_layers(name: str, layers: tuple[int, ...], depth: int) -> None:
    """Raise `UsageError` if a block number is out of range or the numbers do not ascend."""
    numbers = ", ".join(map(str, layers))
    if any(not 0 <= layer < depth for layer in layers):
        raise UsageError(f"{name} has blocks 0 to {depth - 1}; found layers {numbers}.")
    if list(layers) != sorted(set(layers)):
        raise UsageError(f"layers must ascend without repeats; found {numbers}.")
