"""Strict loading: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pa.errors import CheckpointError, UsageError
from pa.extract.encoders import ENCODERS, load_encoder, load_report
from pa.extract.encoders.positions import sincos_table
from tests.extract.encoders.checkpoints import (
    DEPTH,
    GRID,
    PATCH,
    SIZE,
    WIDTH,
    official,
    vit,
)

Save = Callable[..., Path]
FAMILIES = tuple(ENCODERS)
BACKBONE_ONLY = {"dino": vit(), "ibot": {"state_dict": vit()}}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_good_file_loads_and_reports_every_key(name: str, save: Save, pixels: Tensor) -> None:
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
def test_nothing_is_loaded_that_does_not_fit(name: str, damage: str, save: Save) -> None:
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
def test_a_projector_must_be_whole(name: str, save: Save) -> None:
    content = official(name)
    tensors = content["state_dict" if name == "mocov3" else "teacher"]
    key = "module.base_encoder.head.3.weight" if name == "mocov3" else "head.mlp.2.weight"
    del tensors[key]
    report = load_report(name, save(content))
    assert report.missing == (f"projector.{key.split('head.')[1]}",)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("found", FAMILIES)
def test_another_familys_file_is_named_for_what_it_is(name: str, found: str, save: Save) -> None:
    if name == found:
        return
    path = save(official(found))
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
    assert f"It looks like {words[found]}" in str(caught.value)
    assert str(path) in str(caught.value)
    assert load_report(name, path).describe() == str(caught.value)


def fine_tuned_beit() -> dict[str, Any]:
    tensors = vit(split_bias=True) | {"fc_norm.weight": torch.ones(WIDTH)}
    return {"model": tensors | {"head.weight": torch.ones(10, WIDTH)}}


def distilled_deit() -> dict[str, Any]:
    tensors = official("deit")["model"] | {"dist_token": torch.zeros(1, 1, WIDTH)}
    return {"model": tensors | {"pos_embed": torch.zeros(1, 198, WIDTH)}}


def momentum_only() -> dict[str, Any]:
    state = official("mocov3")["state_dict"]
    return {"state_dict": {k: v for k, v in state.items() if "momentum" in k}}


def linear_probe() -> dict[str, Any]:
    return {"state_dict": vit("module.") | {"module.head.weight": torch.ones(10, WIDTH)}}


def with_fixed_positions(order: Any) -> dict[str, Tensor]:
    return vit() | {"pos_embed": sincos_table(WIDTH, GRID, order)}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("beit", fine_tuned_beit, ["it is fine-tuned: it has 'fc_norm.weight'", "fine-tuned BEiT"]),
        ("deit", distilled_deit, ["198 positions, not 197", "distilled DeiT"]),
        ("mocov3", momentum_only, ["no tensors of `module.base_encoder`", "branch `momentum`"]),
        ("mocov3", linear_probe, ["a linear-probe file of MoCo v3", "vit-b-300ep.pth.tar"]),
        ("dino", lambda: {"model": vit()}, ["found `model`", "MAE's: load it as `mae`"]),
        ("dino", lambda: with_fixed_positions("column"), ["fixed sin-cos table", "MAE's"]),
        ("ibot", lambda: with_fixed_positions("row"), ["it is MoCo v3's or CAE's"]),
        ("mae", lambda: with_fixed_positions("row"), ["begin with the row, as those of MoCo v3"]),
        (
            "deit",
            lambda: official("deit")["model"] | with_fixed_positions("column"),
            ["where DeiT learns them"],
        ),
        ("deit", vit, ["no 'head.weight'", "backbone of a ViT alone, as DINO's"]),
        (
            "deit",
            lambda: official("deit")["model"] | {"blocks.0.ls1.gamma": torch.ones(WIDTH)},
            ["timm's layer scale, as DeiT III"],
        ),
        ("deit", lambda: {"state_dict": vit()}, ["as iBOT's backbone-only file"]),
        ("mae", lambda: official("deit")["model"], ["it has a classifier (head.weight)"]),
        ("cae", lambda: {"model": vit(split_bias=True)}, ["no tensors of `encoder`"]),
        ("dino", lambda: {"layer1.0.conv1.weight": torch.ones(2)}, ["It looks like a ResNet"]),
        ("dino", lambda: {"spam": torch.ones(2)}, ["nothing known to `pa`", "the keys spam"]),
        (
            "mae",
            lambda: {"model": {"spam": torch.ones(2)}},
            ["no tensor 'patch_embed.proj.weight'"],
        ),
        ("mae", lambda: {"epoch": 3}, ["expected tensors under `model`", "(no tensors)"]),
        (
            "mae",
            lambda: {"model": vit() | {"pos_embed": torch.zeros(1, 12, WIDTH)}},
            ["pos_embed has 12 positions; expected one class token and a square grid"],
        ),
        (
            "mae",
            lambda: {"model": vit() | {"patch_embed.proj.weight": torch.zeros(3)}},
            ["patch_embed.proj.weight should have 4 axes; found shape (3,)"],
        ),
        (
            "beit",
            lambda: {"model": {k: v for k, v in vit(split_bias=True).items() if "pos" not in k}},
            ["neither 'pos_embed' nor a shared table of relative positions"],
        ),
    ],
)
def test_a_wrong_file_is_named(
    name: str, content: Callable[[], Any], words: list[str], save: Save
) -> None:
    path = save(content())
    with pytest.raises(CheckpointError) as caught:
        load_encoder(name, path)
    for word in [*words, str(path)]:
        assert word in str(caught.value)
    assert f"load it as `{name}`." not in str(caught.value)


@pytest.mark.parametrize("name", ["dino", "ibot"])
def test_a_backbone_only_file_says_where_the_projector_is(name: str, save: Save) -> None:
    encoder = load_encoder(name, save(BACKBONE_ONLY[name]))
    assert "projected" not in encoder.representations
    for representation in ("projected", "bottleneck"):
        with pytest.raises(
            CheckpointError, match=r"backbone of \w+ without its projector"
        ) as caught:
            encoder.require([representation])
    full = next(s.file for s in ENCODERS[name].card.sources if s.projector)
    assert f"The file that has it: {full}" in str(caught.value)
    with pytest.raises(CheckpointError, match="without its projector"):
        encoder.project(torch.zeros(1, WIDTH))
    with pytest.raises(CheckpointError, match="it has no student"):
        load_encoder(name, save(BACKBONE_ONLY[name]), branch="student")


def test_moco_without_projector_loads_as_a_backbone(save: Save) -> None:
    state = official("mocov3")["state_dict"]
    content = {"state_dict": {k: v for k, v in state.items() if ".head." not in k}}
    encoder = load_encoder("mocov3", save(content))
    with pytest.raises(CheckpointError, match=r"The file that has it: vit-b-300ep\.pth\.tar"):
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


def test_unknown_representations_list_what_there_is(save: Save) -> None:
    encoder = load_encoder("mae", save(official("mae")))
    with pytest.raises(UsageError, match=r"mae gives no 'layers'\. It gives: cls, pooled, patch"):
        encoder.require(["layers"])


def test_a_file_with_the_student_only(save: Save) -> None:
    content = official("dino")
    del content["teacher"]
    with pytest.raises(CheckpointError, match="only the `student`: pass branch 'student'"):
        load_encoder("dino", save(content))
    assert load_encoder("dino", save(content), branch="student").spec.options["branch"] == "student"
