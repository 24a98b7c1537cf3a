"""`timm/<model>`: load any timm network, transformer or convolutional, as an encoder."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import socket
import sys
import urllib.parse
from collections.abc import Mapping

from torch import Tensor

from pa.data.images import RESAMPLING, Transform
from pa.errors import CheckpointError, MissingError, UnknownNameError, UsageError
from pa.extract import torchvision_ops
from pa.extract.encoders.base import Encoder, EncoderSpec
from pa.extract.encoders.checkpoint import (
    CheckpointFile,
    LoadReport,
    Rule,
    first_container,
    is_finite,
    state_sha256,
)
from pa.extract.encoders.positions import Network
from pa.extract.encoders.recognise import recognise
from pa.extract.encoders.timm_trunk import TimmTrunk, timm_config

PREFIX = "timm/"
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in the order of timm


def load(
    name: str, file: CheckpointFile | None, layers: tuple[int, ...], report: LoadReport
) -> Encoder:
    """Load `timm/<model>` from a file, or from the hub if `file` is None; complete the report.

    Raises `CheckpointError` if the file does not fit.
    """
    model = create(name.removeprefix(PREFIX), pretrained=file is None)
    if file is None:
        state = model.state_dict()
        report.checkpoint = report.container = "the timm hub"
        report.sha256 = state_sha256(state)
        report.not_finite = [key for key, tensor in state.items() if not is_finite(tensor)]
        report.matched = [key for key in state if key not in report.not_finite]
    else:
        _load_file(model, name, file, report)
    if not report.ok:
        raise CheckpointError(report.describe())
    trunk = TimmTrunk(name, model, layers)
    report.architecture = {"model": name.removeprefix(PREFIX), **trunk.describe()}
    options = {"layers": list(layers)} if layers else {}
    spec = EncoderSpec(name, report.sha256, report.architecture, options)
    return Encoder(spec, transform_of(name, model), trunk)


def create(model_name: str, pretrained: bool) -> Network:
    """Create a timm network without its classifier, in eval mode."""
    torchvision_ops.ensure()
    import timm

    architecture, _, tag = model_name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        near = difflib.get_close_matches(architecture, known, n=5) or known
        raise UnknownNameError("timm model", architecture, near, "`timm.list_models()` lists all.")
    tags = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and model_name not in tags:
        raise UnknownNameError("timm model", model_name, tags)
    if pretrained:
        _require_hub(model_name)
    try:
        model = timm.create_model(model_name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise _no_weights(model_name, str(error).splitlines()[0]) from None
    return model.eval()


def _require_hub(model_name: str) -> None:
    """Raise `MissingError` early if offline without a cached file: timm retries for 50 seconds."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(model_name)
    if config is None or not (config.hf_hub_id or config.url):
        raise _no_weights(model_name, "timm has no weights of this name")
    hub_id = config.hf_hub_id or ""
    files = ("model.safetensors", "pytorch_model.bin") if hub_id else ()
    if any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files):
        return
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return  # a proxy resolves names itself
    host = urllib.parse.urlsplit(constants.ENDPOINT if hub_id else str(config.url)).hostname
    try:
        socket.getaddrinfo(host, 443)  # a name server answers or fails within a second
    except OSError:
        raise _no_weights(model_name, f"{host} cannot be reached") from None


def _no_weights(model_name: str, reason: str) -> MissingError:
    import timm

    config = timm.models.get_pretrained_cfg(model_name)
    hub_id = config.hf_hub_id if config else None
    where = f"; on a machine with a network: model.safetensors of https://huggingface.co/{hub_id}"
    return MissingError(
        f"{PREFIX}{model_name}: the weights cannot be downloaded: {reason}. Pass --checkpoint FILE "
        f"with a state_dict of this model (.safetensors or .pth{where if hub_id else ''})."
    )


def _load_file(model: Network, name: str, file: CheckpointFile, report: LoadReport) -> None:
    """Load a file in timm's layout, or in the official layout that timm's own filter converts."""
    looks_like = recognise(file.content).sentence(name)
    container, raw = first_container(file.content, CONTAINERS)
    if not raw:
        raise CheckpointError(
            f"{file.path} contains no tensors: expected a state_dict, alone or under "
            f"{', '.join(CONTAINERS)}; found the entries {', '.join(map(str, file.content))}. "
            f"{looks_like}"
        )
    report.checkpoint, report.sha256, report.looks_like = str(file.path), file.sha256, looks_like
    report.container = f"`{container}`" if container else "the file"
    # The classifier and the layers under the first part of its name (head.fc, head.bn).
    classifier = timm_config(model).get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else classifier
    heads = "|".join(re.escape(layer.partition(".")[0]) for layer in layers)
    names = "|".join(map(re.escape, model.state_dict()))
    rules = [Rule(rf"({names})", "encoder")]
    # Other keys that the network lacks are unexpected: the file belongs to another network.
    rules += [Rule(rf"(?:{heads})\..*", reason="the classifier")] if heads else []
    report.fill(model, "encoder", report.sort(raw, rules).get("encoder", {}))
    # As the file is first: a filter may also change a file in timm's layout.
    if report.n_mismatches and (converted := _convert(model, name, raw)) is not None:
        tensors, resized, omitted = converted
        other = LoadReport(name, str(file.path), file.sha256, report.container)
        other.looks_like = looks_like
        kept = {key: tensor for key, tensor in tensors.items() if key not in resized}
        other.fill(model, "encoder", other.sort(kept, rules).get("encoder", {}))
        other.wrong_shape += resized.values()
        other.missing = [key for key in other.missing if key not in resized]
        other.ignored += omitted
        # The reading with fewer faults is reported: its message leads further.
        if other.n_mismatches < report.n_mismatches:
            vars(report).update(vars(other))


def _convert(
    model: Network, name: str, raw: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str], list[tuple[str, str]]] | None:
    """Convert an official layout with the filter that timm applies to its downloads.

    Return the tensors, a message for each tensor that the filter resized, and the keys that it
    removed; None if timm has no filter or the filter does not know the file.
    """
    import timm

    architecture = name.removeprefix(PREFIX).partition(".")[0]
    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    # timm's DeiT III asks for this argument; without such keys it changes nothing.
    extra = {"adapt_layer_scale"} & inspect.signature(convert).parameters.keys()
    before = {key.removeprefix("module."): tensor for key, tensor in raw.items()}
    try:
        after = convert(dict(before), model, **dict.fromkeys(extra, True))
    except Exception:  # noqa: BLE001 - filters raise any error for a file they do not know
        return None
    n_prefix = int(getattr(model, "num_prefix_tokens", 1))
    # Tensors that a filter passes through are the same objects under other keys.
    same, kept = {id(t) for t in before.values()}, {id(t) for t in after.values()}
    resized = {}
    for key, tensor in after.items():
        source = next((k for k in before if k == key or k.endswith(f".{key}")), "")
        if id(tensor) not in same and source and _is_resized(key, before[source], tensor, n_prefix):
            shape = tuple(before[source].shape)
            resized[key] = f"{source}: expected {tuple(tensor.shape)}, found {shape}"
    reason = "converted or left out by timm's checkpoint filter"
    gone = [(k, reason) for k, v in before.items() if k not in after and id(v) not in kept]
    return after, resized, gone


def _is_resized(key: str, before: Tensor, after: Tensor, n_prefix: int) -> bool:
    """Return whether a filter interpolated a tensor, which would change the network.

    Removing the rows of prefix tokens from a table of positions is a conversion.
    """
    if before.numel() == after.numel():
        return False  # reshaped or split
    rows = before.shape[1] - after.shape[1] if before.ndim == after.ndim == 3 else -1  # (1, N, C)
    return not (key == "pos_embed" and 0 < rows <= n_prefix)


def transform_of(name: str, model: Network) -> Transform:
    """Return the evaluation transform of a timm model, from its pretrained configuration."""
    config = timm_config(model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise UsageError(
            f"{name} takes images of {channels}x{height}x{width}; `pa` encodes square RGB images."
        )
    if config["interpolation"] not in RESAMPLING:
        raise UsageError(
            f"{name} needs {config['interpolation']!r} resizing; known: {', '.join(RESAMPLING)}."
        )
    return Transform(
        size=height,
        resize=int(height / config["crop_pct"]),  # floor, as timm.data.create_transform does
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
