"""Strict loading: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pa.errors import CheckpointError, UsageError
from pa.extract.encoders import ENCODERS
from tests.support.checkpoints import (
    DEPTH,
    GRID,
    PATCH,
    SIZE,
    WIDTH,
    load_encoder,
    load_report,
    official,
    vit,
)

Save = Callable[..., Path]
FAMILIES = tuple(ENCODERS)
BACKBONE_ONLY = {"dino": vit(), "ibot": {"state_dict": vit()}}


@pytest.mark.parametrize("name", FAMILIES)
def test_valid_file_loads_and_reports_every_key(name: str, save: Save, pixels: Tensor) -> None:
    path = save(official(name))
    report = load_report(name, path)
    assert report.ok
    assert [*report.missing, *report.unexpected, *report.wrong_shape, report.problem] == [""]
    container = official(name)[report.container.strip("`")]
    assert sorted([*report.matched, *(key for key, _ in report.ignored)]) == sorted(container)
    assert {"width": WIDTH, "depth": DEPTH, "patch": PATCH, "grid": GRID}.items() <= (
        report.architecture.items()
    )
    encoder = load_encoder(name, path)
    assert set(report.norms) == set(encoder.representations)
    assert all(norm > 0 for norm in report.norms.values())
    features = encoder.encode(pixels)
    for representation, shape in encoder.representations.items():
        assert features[representation].shape == (2, *shape)
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


def test_renamed_and_ignored_keys_say_why(save: Save) -> None:
    report = load_report("mocov3", save(official("mocov3")))
    assert ("module.base_encoder.norm.bias", "norm.bias") in report.renamed
    assert dict(report.ignored)["module.momentum_encoder.norm.bias"] == "the momentum branch"
    assert dict(report.ignored)["module.predictor.0.weight"].startswith("the predictor")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("damage", ["missing", "unexpected", "wrong shape"])
def test_unfitting_file_is_refused(name: str, damage: str, save: Save) -> None:
    content = official(name)
    tensors = content[load_report(name, save(official(name))).container.strip("`")]
    prefix = {"mocov3": "module.base_encoder.", "dino": "backbone.", "ibot": "backbone."}.get(
        name, "encoder." if name == "cae" else ""
    )
    key = f"{prefix}blocks.1.mlp.fc2.weight"
    if damage == "missing":
        del tensors[key]
        key = "blocks.1.mlp.fc2.weight"
    elif damage == "unexpected":
        key = f"{prefix}blocks.1.mlp.gate.weight"
        tensors[key] = torch.zeros(3)
    else:
        tensors[key] = torch.zeros(WIDTH, 7)
        key = f"{key}: expected ({WIDTH}, 96), found ({WIDTH}, 7)"
    path = save(content)
    report = load_report(name, path)
    assert not report.ok
    assert [key] == [*report.missing, *report.unexpected, *report.wrong_shape]
    with pytest.raises(CheckpointError) as caught:
        load_encoder(name, path)
    assert caught.value.exit_code == 4
    assert f"does not fit {name}" in str(caught.value)
    assert key in str(caught.value)
    assert {"missing": "1 missing", "unexpected": "1 unexpected"}.get(damage, "wrong shape") in str(
        caught.value
    )


@pytest.mark.parametrize("name", ["mocov3", "dino", "ibot"])
def test_incomplete_projector_is_refused(name: str, save: Save) -> None:
    content = official(name)
    tensors = content["state_dict" if name == "mocov3" else "teacher"]
    key = "module.base_encoder.head.3.weight" if name == "mocov3" else "head.mlp.2.weight"
    del tensors[key]
    report = load_report(name, save(content))
    assert report.missing == [f"projector.{key.split('head.')[1]}"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("actual", FAMILIES)
def test_file_of_another_family_is_identified(name: str, actual: str, save: Save) -> None:
    if name == actual:
        return
    path = save(official(actual))
    with pytest.raises(CheckpointError) as caught:
        load_encoder(name, path)
    words = {
        "deit": "a ViT with a classifier, as DeiT's: load it as `deit`",
        "mocov3": "a MoCo v3 checkpoint: load it as `mocov3`",
        "dino": "a DINO checkpoint: load it as `dino`",
        "beit": "a BEiT checkpoint: load it as `beit`",
        "mae": "a MAE checkpoint with its decoder: load it as `mae`",
        "cae": "a CAE checkpoint: load it as `cae`",
        "ibot": "an iBOT checkpoint: load it as `ibot`",
    }
    assert f"It looks like {words[actual]}" in str(caught.value)
    assert str(path) in str(caught.value)
    assert load_report(name, path).describe() == str(caught.value)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        (
            "mae",
            {"pos_embed": torch.zeros(1, 12, WIDTH)},
            "pos_embed has 12 positions; expected one",
        ),
        (
            "mae",
            {"patch_embed.proj.weight": torch.zeros(3)},
            "should have 4 axes; found shape (3,)",
        ),
        (
            "beit",
            {"rel_pos_bias.relative_position_bias_table": None},
            "neither 'pos_embed' nor a shared table of relative positions",
        ),
        ("mae", {"patch_embed.proj.weight": None}, "it has no tensor 'patch_embed.proj.weight'"),
    ],
)
def test_tensors_that_decide_the_shape_are_named(
    name: str, changed: dict[str, Tensor | None], words: str, save: Save
) -> None:
    tensors = {**official(name)["model"], **changed}
    content = {"model": {key: tensor for key, tensor in tensors.items() if tensor is not None}}
    report = load_report(name, save(content))
    assert words in report.problem


@pytest.mark.parametrize("name", ["beit", "cae"])
@pytest.mark.parametrize("key", ["gamma_1", "attn.q_bias", "mlp.fc1.weight"])
def test_missing_tensor_of_first_block_is_reported(name: str, key: str, save: Save) -> None:
    content = official(name)
    prefix = "encoder." if name == "cae" else ""
    del content["model"][f"{prefix}blocks.0.{key}"]
    report = load_report(name, save(content))
    assert report.missing == [f"blocks.0.{key}"]
    assert [kind for kind, keys in report.mismatches() if keys] == ["missing"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(name: str, value: float, save: Save) -> None:
    content = official(name)
    container = load_report(name, save(official(name))).container.strip("`")
    key = next(key for key in content[container] if key.endswith("blocks.1.mlp.fc2.weight"))
    content[container][key][0, 0] = value
    path = save(content)
    assert load_report(name, path).not_finite == [key]
    with pytest.raises(CheckpointError, match=key):
        load_encoder(name, path)


def test_repeated_tensor_is_refused(save: Save) -> None:
    content = official("mae")
    content["model"]["module.norm.weight"] = content["model"]["norm.weight"] + 1
    assert load_report("mae", save(content)).unexpected == ["module.norm.weight"]


@pytest.mark.parametrize("name", ["dino", "ibot"])
def test_backbone_file_names_file_with_projector(name: str, save: Save) -> None:
    encoder = load_encoder(name, save(BACKBONE_ONLY[name]))
    assert "projected" not in encoder.representations
    for representation in ("projected", "bottleneck"):
        with pytest.raises(
            CheckpointError, match=r"backbone of \w+ without its projector"
        ) as caught:
            encoder.require([representation])
    full = next(s.file for s in ENCODERS[name].card.sources if s.projector)
    assert f"Files with the projector: {full}" in str(caught.value)
    with pytest.raises(CheckpointError, match="without its projector"):
        encoder.project(torch.zeros(1, WIDTH))
    with pytest.raises(CheckpointError, match="the teacher only"):
        load_encoder(name, save(BACKBONE_ONLY[name]), branch="student")


def test_moco_without_projector_loads_as_a_backbone(save: Save) -> None:
    state = official("mocov3")["state_dict"]
    content = {"state_dict": {k: v for k, v in state.items() if ".head." not in k}}
    encoder = load_encoder("mocov3", save(content))
    with pytest.raises(CheckpointError, match=r"Files with the projector: vit-b-300ep\.pth\.tar"):
        encoder.require(["projected"])


@pytest.mark.parametrize("name", ["deit", "beit", "mae", "cae"])
def test_methods_without_projector_say_so(name: str, save: Save) -> None:
    encoder = load_encoder(name, save(official(name)))
    with pytest.raises(UsageError, match=f"{name} has no projector"):
        encoder.encode(torch.zeros(1, 3, SIZE, SIZE), {"projected"})


def test_moco_has_no_bottleneck(save: Save) -> None:
    encoder = load_encoder("mocov3", save(official("mocov3")))
    with pytest.raises(UsageError, match="the projector of mocov3 has no bottleneck"):
        encoder.require(["bottleneck"])


def test_unknown_representation_lists_available_ones(save: Save) -> None:
    encoder = load_encoder("mae", save(official("mae")))
    with pytest.raises(
        UsageError, match=r"mae has no representation 'layers'\. Available: cls, pooled, patch"
    ):
        encoder.require(["layers"])


def test_file_with_student_only_is_accepted(save: Save) -> None:
    content = official("dino")
    del content["teacher"]
    with pytest.raises(CheckpointError, match="the student only: pass --branch student"):
        load_encoder("dino", save(content))
    assert load_encoder("dino", save(content), branch="student").spec.options["branch"] == "student"
