"""`timm/<model>`: any timm network, transformer or convolutional, as an encoder.

Shapes: B regions, N tokens of which the first are prefix tokens (class, distillation, registers),
L patch tokens, C channels, h and w cells of a feature map.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import socket
import urllib.parse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pa.data.images import RESAMPLING, Transform
from pa.errors import CheckpointError, MissingError, UnknownNameError, UsageError
from pa.extract import torchvision_ops
from pa.extract.encoders.base import EncoderSpec
from pa.extract.encoders.checkpoint import CheckpointFile, state_sha256, tensors_in
from pa.extract.encoders.frozen import FrozenEncoder, Tokens, Trunk, check_layers, stack_layers
from pa.extract.encoders.positions import Network
from pa.extract.encoders.report import Comparison, LoadReport, Rule, fill, sort_keys

PREFIX = "timm/"
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # timm's own order of choice


def load(
    name: str, file: CheckpointFile | None, layers: tuple[int, ...]
) -> tuple[LoadReport, FrozenEncoder | None]:
    """Load `timm/<model>` from a file, or from the hub where `file` is None."""
    model = create(name.removeprefix(PREFIX), pretrained=file is None)
    if file is None:
        sha256, container = state_sha256(model.state_dict()), "the timm hub"
        lists: dict[str, Any] = {"matched": tuple(model.state_dict())}
    else:
        sha256 = file.sha256
        container, lists = _load_file(model, file)
    trunk = TimmTrunk(name, model, layers)
    architecture = {"model": name.removeprefix(PREFIX), **trunk.describe()}
    source = str(file.path) if file else container
    report = LoadReport(name, source, sha256, container, architecture, **lists)
    if not report.ok:
        return report, None
    spec = EncoderSpec(name, sha256, architecture, {"layers": list(layers)} if layers else {})
    return report, FrozenEncoder(spec, transform_of(name, model), trunk)


def create(model_name: str, pretrained: bool) -> Network:
    """Create a timm network without its classifier, in eval mode."""
    torchvision_ops.ensure()
    import timm

    _check_name(model_name)
    if pretrained:
        _require_hub(model_name)
    try:
        model = timm.create_model(model_name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise _no_weights(model_name, str(error).splitlines()[0]) from None
    return model.eval()


def _check_name(model_name: str) -> None:
    import timm

    architecture, _, tag = model_name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        near = difflib.get_close_matches(architecture, known, n=5) or known
        raise UnknownNameError("timm model", architecture, near, "`timm.list_models()` lists all.")
    tags = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and model_name not in tags:
        raise UnknownNameError("timm model", model_name, tags)


def _require_hub(model_name: str) -> None:
    """Fail at once without a cached file and a name server: timm would retry for 50 seconds."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(model_name)
    if config is None or not (config.hf_hub_id or config.url):
        raise _no_weights(model_name, "timm has none for this name")
    hub_id = config.hf_hub_id
    cached = [
        try_to_load_from_cache(hub_id, file)
        for file in ("model.safetensors", "pytorch_model.bin")
        if hub_id
    ]
    proxied = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if proxied or any(isinstance(path, str) for path in cached):
        return
    host = urllib.parse.urlsplit(constants.ENDPOINT if hub_id else str(config.url)).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        raise _no_weights(model_name, f"{host} cannot be reached") from None


def _no_weights(model_name: str, reason: str) -> MissingError:
    import timm

    config = timm.models.get_pretrained_cfg(model_name)
    hub_id = config.hf_hub_id if config else None
    where = f"; on a machine with a network: model.safetensors of https://huggingface.co/{hub_id}"
    return MissingError(
        f"{PREFIX}{model_name}: no weights could be fetched: {reason}. Pass --checkpoint FILE "
        f"with a state_dict of this model (.safetensors or .pth{where if hub_id else ''})."
    )


def _load_file(model: Network, file: CheckpointFile) -> tuple[str, dict[str, Any]]:
    container, tensors = flat_or_container(file, CONTAINERS)
    own = "|".join(map(re.escape, model.state_dict()))
    # The classifier and what belongs to it (head.fc, head.bn): the first part of its name.
    heads = "|".join(re.escape(head.partition(".")[0]) for head in classifiers(model))
    rules = [Rule(rf"(?:module\.)?({own})", "encoder")]
    rules += [Rule(rf"(?:module\.)?(?:{heads})\..*", reason="the classifier")] if heads else []
    found = sort_keys(tensors, rules)
    comparison = Comparison(unexpected=list(found.unexpected))
    fill(model, "encoder", found, comparison)
    return container, comparison.lists() | {"ignored": found.ignored}


def flat_or_container(
    file: CheckpointFile, containers: tuple[str, ...]
) -> tuple[str, dict[str, Tensor]]:
    """Return the tensors of the first container there is, or of the file itself."""
    for container in containers:
        if tensors := tensors_in(file.content.get(container)):
            return f"`{container}`", tensors
    if tensors := tensors_in(file.content):
        return "the file", tensors
    raise CheckpointError(
        f"{file.path} holds no tensors: expected a state_dict, alone or under "
        f"{', '.join(containers)}; found the entries {', '.join(map(str, file.content))}."
    )


def classifiers(model: Network) -> tuple[str, ...]:
    """Names of the layers that timm calls the classifier, whose keys need no place."""
    named = _config(model).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _config(model: Network) -> Mapping[str, Any]:
    config: Mapping[str, Any] = model.pretrained_cfg
    return config


def transform_of(name: str, model: Network) -> Transform:
    """Return the evaluation transform of a timm model, from its pretrained configuration."""
    config = _config(model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise UsageError(
            f"{name} takes images of {channels}x{height}x{width}; `pa` encodes square RGB images."
        )
    if config["interpolation"] not in RESAMPLING:
        raise UsageError(
            f"{name} wants {config['interpolation']!r} resizing; known: {', '.join(RESAMPLING)}."
        )
    return Transform(
        size=height,
        resize=int(height / config["crop_pct"]),  # floor, as timm.data.create_transform does
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


class TimmTrunk(Trunk):
    """A timm network whose output is turned into a class token and row-major patch tokens.

    The layout is found by one forward pass of a black image at the native size.
    """

    def __init__(self, name: str, model: Network, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.layers = layers
        self.size = int(_config(model)["input_size"][-1])
        self.has_cls = False
        self.n_prefix = 0
        self.channel_axis: int | None = None
        self.token_norm = _postponed_norm(model)
        self._find_layout()
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
        }

    @torch.no_grad()
    def _find_layout(self) -> None:
        output = self.model.forward_features(torch.zeros(1, 3, self.size, self.size))
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            raise UsageError(
                f"{self.name} gives neither tokens nor a feature map: it cannot be an encoder."
            )
        if output.ndim == 4:
            self.channel_axis = channel_axis(self.name, self.model, output.shape)
            self.channels_last = self.channel_axis == 1
            self.width = output.shape[self.channel_axis]
            self.n_patches = output[0].numel() // self.width
            return
        self.n_prefix = int(getattr(self.model, "num_prefix_tokens", 0))
        self.has_cls = self.n_prefix > 0 and getattr(self.model, "cls_token", None) is not None
        self.n_patches, self.width = output.shape[1] - self.n_prefix, output.shape[2]
        if round(self.n_patches**0.5) ** 2 != self.n_patches:
            raise UsageError(
                f"{self.name} gives {output.shape[1]} tokens, {self.n_prefix} of them before the "
                "patches: the rest is no square grid, so which are patch tokens is undecidable."
            )

    def _check_layers(self) -> None:
        blocks = getattr(self.model, "blocks", None)
        tokens = self.channel_axis is None and hasattr(self.model, "forward_intermediates")
        if not tokens or not isinstance(blocks, nn.ModuleList | nn.Sequential):
            raise UsageError(f"{self.name} has no blocks of equal tokens: leave `layers` out.")
        check_layers(self.name, self.layers, len(blocks))

    @torch.no_grad()
    def n_patches_at(self, size: int) -> int:
        """Found by one forward pass: strides and paddings of a timm model are its own affair."""
        if size not in self._patches:
            weight = next(self.parameters())
            black = torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype)
            try:
                self._patches[size] = self.tokens(black, with_layers=False).patch.shape[1]
            except (RuntimeError, AssertionError) as error:
                line = str(error).splitlines()[0]
                raise UsageError(f"{self.name} takes no {size}x{size} images: {line}") from None
        return self._patches[size]

    def tokens(self, pixels: Tensor, with_layers: bool) -> Tokens:
        self._check_size(pixels)
        layers: tuple[Tensor | None, Tensor | None] = (None, None)
        if with_layers:
            # (B, N, D) after the norm, and K times (B, L, D) and (B, P, D) before it
            output, blocks = self.model.forward_intermediates(
                pixels,
                indices=list(self.layers),
                norm=False,
                output_fmt="NLC",
                return_prefix_tokens=True,
            )
            layers = stack_layers(blocks)
        else:
            output = self.model.forward_features(pixels)
        if self.channel_axis is not None:
            cells = output.flatten(2).mT if self.channel_axis == 1 else output.flatten(1, 2)
            return Tokens(None, cells, None)  # (B, h*w, C)
        if self.token_norm is not None:
            output = self.token_norm(output)
        cls = output[:, 0] if self.has_cls else None
        patches, of_cls = layers
        return Tokens(cls, output[:, self.n_prefix :], patches, of_cls if self.has_cls else None)

    def _check_size(self, pixels: Tensor) -> None:
        fixed = _config(self.model).get("fixed_input_size", False)
        if fixed and tuple(pixels.shape[-2:]) != (self.size, self.size):
            raise UsageError(
                f"{self.name} takes {self.size}x{self.size} images only; found "
                f"{pixels.shape[-2]}x{pixels.shape[-1]}."
            )


def _postponed_norm(model: Network) -> nn.Module | None:
    """Return the norm that a model with average pooling applies after the mean (timm's fc_norm).

    Such a model leaves its tokens un-normalised. Here it is applied to every token before the
    mean, so that `patch` and `pooled` are taken after the final norm for all encoders alike.
    """
    norm, postponed = getattr(model, "norm", None), getattr(model, "fc_norm", None)
    if isinstance(norm, nn.Identity) and isinstance(postponed, nn.Module):
        return None if isinstance(postponed, nn.Identity) else postponed
    return None


def channel_axis(name: str, model: Network, shape: torch.Size) -> int:
    """Tell (B, C, h, w) from (B, h, w, C): 1 or 3. Raises `UsageError` where nothing decides."""
    stated = getattr(model, "output_fmt", None)
    if stated is not None:
        return 3 if str(getattr(stated, "value", stated)).upper() == "NHWC" else 1
    widths = {getattr(model, "num_features", None)}
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError):
        widths.add(model.feature_info[-1]["num_chs"])
    fits = [axis for axis in (1, 3) if shape[axis] in widths]
    if len(fits) != 1:
        raise UsageError(
            f"{name} gives a feature map of shape {tuple(shape)} and {sorted(map(str, widths))} "
            "channels: which axis holds the channels is undecidable."
        )
    return fits[0]
