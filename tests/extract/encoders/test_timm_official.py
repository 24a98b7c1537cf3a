"""Official files of networks that timm has, loaded under their timm names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pa.errors import CheckpointError
from pa.extract.encoders import ENCODERS, load_encoder, load_report
from tests.support.checkpoints import official

Save = Callable[..., Path]
Tensors = dict[str, Tensor]


@cache
def network(name: str) -> Any:
    """A timm network with its classifier and weights that are all drawn."""
    import timm

    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(name)
    for parameter in model.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def dinov2(state: Tensors) -> Tensors:
    """The layout of facebookresearch/dinov2: a mask token that no evaluation uses."""
    return state | {"mask_token": torch.zeros(1, state["cls_token"].shape[2])}


def dinov2_registers(state: Tensors) -> Tensors:
    """The class token has a position of its own there; timm adds it to the token."""
    row = torch.ones(1, 1, state["cls_token"].shape[2])
    state = dinov2(state)
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state["cls_token"] - row
    state["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    return state


def deit3(state: Tensors) -> Tensors:
    """The layout of facebookresearch/deit: layer scale is gamma_1 and gamma_2."""
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", key): tensor for key, tensor in state.items()}


def swin(state: Tensors) -> Tensors:
    """The layout of microsoft/Swin-Transformer: a stage ends with its downsampling."""

    def renamed(key: str) -> str:
        key = re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key
        )
        return key.replace("head.fc.", "head.")

    index = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49).long()}
    return {renamed(key): tensor for key, tensor in state.items()} | index


OFFICIAL: dict[str, tuple[str, str, Callable[[Tensors], Tensors]]] = {
    "DINOv2": ("vit_small_patch14_dinov2", "", dinov2),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", "", dinov2_registers),
    "DeiT III": ("deit3_small_patch16_224", "model", deit3),
    "Swin": ("swin_tiny_patch4_window7_224", "model", swin),
    "distilled DeiT": ("deit_tiny_distilled_patch16_224", "model", dict),
    "ResNet": ("resnet18", "", dict),
}
every_file = pytest.mark.parametrize("file", OFFICIAL)


def content(file: str) -> dict[str, Any]:
    name, container, convert = OFFICIAL[file]
    tensors = convert(dict(network(name).state_dict()))
    return {container: tensors} if container else tensors


@every_file
def test_official_file_gives_features_of_timm_file(file: str, save: Save) -> None:
    name = OFFICIAL[file][0]
    loaded = load_encoder(f"timm/{name}", save(content(file)))
    direct = network(name).state_dict()
    for key, tensor in loaded.module.get_submodule("trunk.model").state_dict().items():
        assert torch.allclose(tensor, direct[key], atol=1e-6), key


@every_file
def test_recommended_timm_model_loads_file(file: str, save: Save) -> None:
    report = load_report("deit", save(content(file)))
    assert f"load it as `timm/{OFFICIAL[file][0]}`" in report.describe()


@every_file
def test_converted_file_is_loaded_strictly(file: str, save: Save) -> None:
    name, container, _ = OFFICIAL[file]
    whole = content(file)
    tensors = whole[container] if container else whole
    key = next(key for key in tensors if re.search(r"qkv\.weight|layer2\.0\.conv1\.weight", key))
    del tensors[key]
    tensors["spam"] = torch.zeros(2)
    report = load_report(f"timm/{name}", save(whole))
    assert not report.ok
    assert report.unexpected == ["spam"]
    assert len(report.missing) == 1


def test_positions_of_another_size_are_not_interpolated_unasked(save: Save) -> None:
    state = dict(network("deit_tiny_patch16_224").state_dict())
    state["pos_embed"] = torch.zeros(1, 1 + 24 * 24, 192)
    report = load_report("timm/deit_tiny_patch16_224", save({"model": state}))
    assert not report.ok
    assert "pos_embed" in report.wrong_shape[0]
    assert "(1, 577, 192)" in report.wrong_shape[0]


def test_weights_that_are_not_finite_are_refused(save: Save) -> None:
    state = dict(network("test_vit").state_dict())
    state["blocks.0.mlp.fc1.weight"] = state["blocks.0.mlp.fc1.weight"].clone()
    state["blocks.0.mlp.fc1.weight"][0, 0] = float("nan")
    path = save(state)
    assert load_report("timm/test_vit", path).not_finite == ["blocks.0.mlp.fc1.weight"]
    with pytest.raises(CheckpointError, match=r"NaN or infinity \(blocks\.0\.mlp\.fc1\.weight\)"):
        load_encoder("timm/test_vit", path)


@pytest.mark.parametrize("name", ENCODERS)
def test_family_of_unfitting_file_is_named(name: str, save: Save) -> None:
    path = save(official(name))
    report = load_report("timm/resnet18", path)
    assert not report.ok
    assert f"load it as `{name}`" in report.describe()
