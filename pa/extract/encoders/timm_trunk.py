"""The trunk of a timm network: determine the layout of its output and convert it to tokens.

B: regions, N: tokens, of which the first are prefix tokens (class, distillation, registers),
L: patch tokens, C: channels, P: pooled width, K: chosen blocks, h, w: cells of a feature map.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pa.errors import UsageError
from pa.extract.encoders.base import Tokens, Trunk, check_layers, stack_layers
from pa.extract.encoders.positions import Network


def timm_config(model: Network) -> Mapping[str, Any]:
    """Return the pretrained configuration of a timm network."""
    config: Mapping[str, Any] = model.pretrained_cfg
    return config


class TimmTrunk(Trunk):
    """A timm network whose output is converted to a class token and row-major patch tokens.

    One forward pass of noise at the native size determines the layout. The final norm is applied to
    each patch token. `pooled` is timm's (`forward_head` up to the classifier) if the network pools
    its patch tokens by their mean, else the mean of the patch tokens.
    """

    def __init__(self, name: str, model: Network, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.layers = layers
        self.size = int(timm_config(model)["input_size"][-1])
        self.has_cls = False
        self.n_prefix = 0  # prefix tokens
        self.channel_axis: int | None = None  # of a feature map; None for tokens
        self.only_cls = False  # whether `forward_features` omits the patch tokens
        self.pools_by_mean = False
        self.token_norm: nn.Module | None = None  # the final norm, applied to each token
        self._norm_input: tuple[int, ...] = ()  # shape of its input for one token
        self._find_head(self._find_layout())
        self._patches = {self.size: self.n_patches}  # side of the input → patch tokens
        if layers:
            self._check_layers()

    def describe(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "input_size": self.size,
            "patch_tokens": self.n_patches,
            "prefix_tokens": self.n_prefix,
            "class_token": self.has_cls,
            "pooled": "forward_head" if self.pools_by_mean else "mean of patch",
            "token_norm": self.token_norm is not None,
        }

    @torch.no_grad()
    def _find_layout(self) -> torch.Size:
        """Set the layout and return the shape of the output for one image."""
        output: Any = self._features(_noise(1, 3, self.size, self.size))
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            raise UsageError(
                f"{self.name} returns neither tokens nor a feature map: it cannot be an encoder."
            )
        # A feature map of a convolutional network or of a hierarchical transformer.
        if output.ndim == 4:
            self.channel_axis = channel_axis(self.name, self.model, output.shape)
            self.channels_last = self.channel_axis == 1
            self.width = output.shape[self.channel_axis]
            self.n_patches = output[0].numel() // self.width  # h * w
            return output.shape
        cls_token = getattr(self.model, "cls_token", None)
        self.n_prefix = int(getattr(self.model, "num_prefix_tokens", 0))
        if isinstance(cls_token, Tensor) and cls_token.shape[1] == output.shape[1]:
            # PiT returns its patch tokens separately from its class tokens.
            self.only_cls, self.n_prefix = True, output.shape[1]
            output = self._features(_noise(1, 3, self.size, self.size))
        self.has_cls = self.n_prefix > 0 and cls_token is not None
        self.n_patches, self.width = output.shape[1] - self.n_prefix, output.shape[2]
        if round(self.n_patches**0.5) ** 2 != self.n_patches:
            raise UsageError(
                f"{self.name} returns {output.shape[1]} tokens, {self.n_prefix} of them before the "
                "patches: the rest is not a square grid, so the patch tokens are undecidable."
            )
        shape: torch.Size = output.shape
        return shape

    def _features(self, pixels: Tensor) -> Any:
        """Run the network up to its head; return tokens (B, N, C) or a feature map."""
        if not self.only_cls:
            return self.model.forward_features(pixels)
        cls, maps = self.model.forward_intermediates(pixels, indices=1)
        cells: Tensor = self.model.norm(maps[-1].flatten(2).mT)  # (B, L, C)
        return torch.cat([cls, cells], dim=1)  # (B, N, C)

    @torch.no_grad()
    def _find_head(self, shape: torch.Size) -> None:
        """Determine whether the head pools by the mean, and the final norm that follows it.

        The head is run on noise: it pools by the mean if its result depends only on the mean of the
        patch tokens, and a norm is the final norm if it is applied to a pooled vector.
        """
        noise = _noise(*shape)
        cells = self._cells(noise)  # (1, N, C)
        mean = cells[:, self.n_prefix :].mean(dim=1)  # (1, C)
        # A second input with the same mean: a head that pools by the mean returns the same vector.
        same = mean[:, None].expand_as(cells).clone()  # (1, N, C)
        same[:, : self.n_prefix] = -cells[:, : self.n_prefix]
        inputs: dict[nn.Module, Tensor] = {}

        def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs.setdefault(module, arguments[0])

        hooks = [
            module.register_forward_pre_hook(record)
            for module in self.model.modules()
            if "Norm" in type(module).__name__ and not list(module.children())
        ]
        try:
            pooled = self._pool(noise)
        finally:
            for hook in hooks:
                hook.remove()
        if pooled is None:
            return
        output = same.mT if self.channel_axis == 1 else same
        other = self._pool(output.reshape(noise.shape))
        self.pools_by_mean = other is not None and _close(pooled, other)
        if self.pools_by_mean:
            self.pooled_width = pooled.shape[1]
        vectors = [mean, *([cells[:, 0]] if self.n_prefix else [])]
        for module, value in inputs.items():
            if any(value.numel() == v.numel() and _close(value.flatten(1), v) for v in vectors):
                self.token_norm, self._norm_input = module, tuple(value.shape[1:])
                return

    def _pool(self, output: Tensor) -> Tensor | None:
        """Return the input of the classifier (B, P), or None if there is no such vector."""
        try:
            pooled = self.model.forward_head(output, pre_logits=True)
        except (AttributeError, TypeError, RuntimeError, AssertionError, IndexError):
            return None
        fits = isinstance(pooled, Tensor) and pooled.ndim == 2 and len(pooled) == len(output)
        return pooled if fits else None

    def _cells(self, output: Tensor) -> Tensor:
        """Convert the output to tokens (B, N, C), a feature map row by row."""
        if self.channel_axis is None:
            return output
        # (B, C, h, w) or (B, h, w, C) to (B, h*w, C)
        return output.flatten(2).mT if self.channel_axis == 1 else output.flatten(1, 2)

    @torch.no_grad()
    def _check_layers(self) -> None:
        """Raise unless `forward_intermediates` returns the raw outputs of the chosen blocks."""
        refused = UsageError(
            f"{self.name} has no blocks whose outputs are all {self.n_patches} patch tokens of "
            f"width {self.width}: omit `layers` (--layers)."
        )
        blocks = getattr(self.model, "blocks", None)
        tokens = self.channel_axis is None and not self.only_cls
        if not tokens or not isinstance(blocks, nn.ModuleList | nn.Sequential):
            raise refused
        check_layers(self.name, self.layers, len(blocks))
        outputs: dict[int, Any] = {}
        hooks = [
            blocks[i].register_forward_hook(lambda m, args, out, i=i: outputs.update({i: out}))
            for i in self.layers
        ]
        try:
            layers = self(_noise(1, 3, self.size, self.size), with_layers=True).layers
        except (AttributeError, TypeError, RuntimeError, AssertionError, ValueError):
            raise refused from None
        finally:
            for hook in hooks:
                hook.remove()
        if layers is None or layers.shape != (1, len(self.layers), self.n_patches, self.width):
            raise refused
        for position, index in enumerate(self.layers):
            output = outputs.get(index)
            # Prefix tokens precede the patches.
            patches = output[:, -self.n_patches :] if isinstance(output, Tensor) else None
            if patches is None or not torch.equal(patches, layers[:, position]):
                raise refused

    @torch.no_grad()
    def n_patches_at(self, size: int) -> int:
        """Return the number by one forward pass, since strides and paddings differ by model."""
        if size not in self._patches:
            weight = next(self.parameters())
            black = torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype)
            try:
                self._patches[size] = self(black).patch.shape[1]
            except (RuntimeError, AssertionError) as error:
                line = str(error).splitlines()[0]
                raise UsageError(f"{self.name} refuses {size}x{size} images: {line}") from None
        return self._patches[size]

    def forward(self, pixels: Tensor, with_layers: bool = False) -> Tokens:
        fixed = timm_config(self.model).get("fixed_input_size", False)
        if fixed and tuple(pixels.shape[-2:]) != (self.size, self.size):
            raise UsageError(
                f"{self.name} takes {self.size}x{self.size} images only; found "
                f"{pixels.shape[-2]}x{pixels.shape[-1]}."
            )
        patches = of_cls = None  # (B, K, L, C) and (B, K, C) of the chosen blocks
        if with_layers:
            run, extra = self.model.forward_intermediates, dict[str, bool]()
            if self.n_prefix and "return_prefix_tokens" in inspect.signature(run).parameters:
                extra["return_prefix_tokens"] = True
            indices = list(self.layers)
            output, blocks = run(pixels, indices=indices, norm=False, output_fmt="NLC", **extra)
            patches, of_cls = stack_layers(blocks)
        else:
            output = self._features(pixels)
        pooled = self._pool(output) if self.pools_by_mean else None  # (B, P)
        cells = self._cells(output)  # (B, N, C)
        if self.token_norm is not None:
            # Some norms expect a feature map of one cell, as they do behind the pooling.
            rows = self.token_norm(cells.reshape(-1, *self._norm_input))  # (B*N, C) or (…, 1, 1)
            cells = rows.reshape(cells.shape)
        cls = cells[:, 0] if self.has_cls else None  # (B, C)
        of_cls = of_cls if self.has_cls else None
        return Tokens(cls, cells[:, self.n_prefix :], patches, of_cls, pooled)


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _close(first: Tensor, second: Tensor) -> bool:
    """Return whether two vectors are equal except for rounding."""
    scale = float(first.abs().max())  # rounding is relative to the largest component
    return first.shape == second.shape and torch.allclose(first, second, atol=1e-4 * scale)


def channel_axis(name: str, model: Network, shape: torch.Size) -> int:
    """Return the axis of the channels: 1 of (B, C, h, w) or 3 of (B, h, w, C).

    Raises `UsageError` if it is ambiguous.
    """
    stated = getattr(model, "output_fmt", None)
    if stated is not None:
        return 3 if str(getattr(stated, "value", stated)).upper() == "NHWC" else 1
    widths = {getattr(model, "num_features", None)}
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError):
        widths.add(model.feature_info[-1]["num_chs"])
    fits = [axis for axis in (1, 3) if shape[axis] in widths]
    if len(fits) != 1:
        raise UsageError(
            f"{name} returns a feature map of shape {tuple(shape)} and {sorted(map(str, widths))} "
            "channels: the axis of the channels is undecidable."
        )
    return fits[0]
