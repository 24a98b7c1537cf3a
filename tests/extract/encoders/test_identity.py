"""What a file is: each family accepts its own files, and every advice leads to an end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pa.errors import CheckpointError
from pa.extract import encoders
from pa.extract.encoders import ENCODERS
from pa.extract.encoders.positions import sincos_table
from tests.support.checkpoints import (
    GRID,
    WIDTH,
    load_encoder,
    load_report,
    official,
    prototype_head,
    vit,
)

Save = Callable[..., Path]
Content = dict[str, Any]
FAMILIES = tuple(ENCODERS)


def module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the prefix of a network that was saved inside DistributedDataParallel."""
    return {f"module.{key}": tensor for key, tensor in tensors.items()}


def without(tensors: dict[str, Tensor], pattern: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not re.search(pattern, key)}


def fixed(order: Any, split_bias: bool = False) -> dict[str, Tensor]:
    """A ViT with the fixed positions of MAE (column) or of MoCo v3 and CAE (row)."""
    return vit(split_bias=split_bias) | {"pos_embed": sincos_table(WIDTH, GRID, order)}


def beit_without_positions() -> dict[str, Tensor]:
    return without(vit(split_bias=True), "pos_embed")


TEACHER, STUDENT = official("ibot")["teacher"], official("ibot")["student"]
DINO = official("dino")
MOCO = official("mocov3")["state_dict"]
HEAD = {"head.weight": torch.ones(10, WIDTH)}
FC_NORM = {"fc_norm.weight": torch.ones(WIDTH)}
RESNET = {f"layer3.{i}.conv1.weight": torch.ones(2) for i in range(6)} | {
    "layer1.0.conv1.weight": torch.ones(2),
    "layer1.0.conv3.weight": torch.ones(2),
}

# A file -> its content, the family that accepts it (with --branch), "" = none of them does.
FILES: dict[str, tuple[Content, str]] = {
    **{f"{name}, as trained": (official(name), name) for name in FAMILIES},
    **{
        f"{name}, with module.": ({"model": module(official(name)["model"])}, name)
        for name in ("deit", "beit", "mae", "cae")
    },
    "mocov3, base encoder alone": ({"model": fixed("row")}, "mocov3"),
    "mocov3, momentum alone": ({"state_dict": without(MOCO, "base_")}, "mocov3 momentum"),
    "mocov3, linear probe": ({"arch": "vit_base", "state_dict": module(vit() | HEAD)}, ""),
    "mocov3, linear probe, fixed positions": ({"state_dict": module(fixed("row") | HEAD)}, ""),
    "mocov3, convolutional stem": (
        {
            "arch": "vit_conv_base",
            "state_dict": without(MOCO, "patch_embed")
            | {"module.base_encoder.patch_embed.proj.0.weight": torch.ones(8, 3, 3, 3)},
        },
        "",
    ),
    "mocov3, ResNet": (
        {"state_dict": {f"module.base_encoder.{k}": v for k, v in RESNET.items()}},
        "",
    ),
    "dino, backbone": (vit(), "dino"),
    "dino, backbone with module.": (module(vit()), "dino"),
    "dino, flat teacher": (DINO["teacher"], "dino"),
    "dino, flat student": (DINO["student"], "dino student"),
    "dino, student only": ({"student": DINO["student"]}, "dino student"),
    "dino, ResNet": ({"teacher": {f"backbone.{k}": v for k, v in RESNET.items()}}, ""),
    "dino, teacher without head": ({"teacher": without(DINO["teacher"], "^head")}, ""),
    "ibot, backbone": ({"state_dict": vit()}, "ibot"),
    "ibot, flat teacher": (TEACHER, "ibot"),
    "ibot, --with_head": ({"state_dict": vit() | prototype_head(second=True)}, "ibot"),
    "ibot, student --with_head": (
        {"state_dict": {k.removeprefix("module.backbone."): v for k, v in STUDENT.items()}},
        "ibot student",
    ),
    "mae, encoder": ({"model": fixed("column")}, "mae"),
    "mae, encoder in bfloat16": (
        {"model": {key: tensor.bfloat16() for key, tensor in fixed("column").items()}},
        "mae",
    ),
    "mae, fine-tuned": ({"model": without(vit(), r"^norm\.") | FC_NORM | HEAD}, ""),
    "mae, linear probe": (
        {"model": fixed("column") | {"head.1.weight": torch.ones(10, WIDTH)}},
        "",
    ),
    "mae, fixed positions and classifier": ({"model": fixed("column") | HEAD}, ""),
    "beit, fine-tuned": ({"model": without(vit(split_bias=True), "pos_") | FC_NORM | HEAD}, ""),
    "cae, encoder": ({"model": fixed("row", split_bias=True)}, "cae"),
    "simmim": (
        {
            "model": {f"encoder.{key}": t for key, t in beit_without_positions().items()}
            | {"decoder.0.weight": torch.ones(3, 3)}
        },
        "",
    ),
    "headless ViT under model": ({"model": vit()}, ""),
    "headless ViT of a timm training": ({"epoch": 3, "arch": "vit", "state_dict": vit()}, ""),
    "classified ViT of a training": ({"epoch": 3, "state_dict": vit() | HEAD}, ""),
    "headless BEiT or CAE": ({"model": vit(split_bias=True)}, ""),
    "distilled DeiT": ({"model": vit() | HEAD | {"dist_token": torch.ones(1, 1, WIDTH)}}, ""),
    "layer scale": ({"model": vit() | {"blocks.0.ls1.gamma": torch.ones(WIDTH)}}, ""),
    "DeiT III": ({"model": vit() | {"blocks.0.gamma_1": torch.ones(WIDTH)}}, ""),
    "ResNet": (RESNET, ""),
    "Swin": ({"model": {"layers.0.blocks.0.attn.qkv.bias": torch.ones(3)}}, ""),
    "CLIP": ({"token_embedding.weight": torch.ones(3)}, ""),
    "transformers": ({"vit.embeddings.cls_token": torch.ones(3)}, ""),
    "unknown keys": ({"spam": torch.ones(2)}, ""),
    "no tensors": ({"epoch": 3}, ""),
}
ENDS = (  # advice that does not name another encoder to try
    "use the file of the pretraining",
    "`pa` has no loader for it",
    "convert it to timm's keys",
    "under the timm name that it was saved from",
    "nothing known to `pa`",
    "a file without tensors",
)

every_file = pytest.mark.parametrize("file", FILES)


@every_file
def test_file_is_accepted_by_its_family_only(file: str, save: Save) -> None:
    content, expected = FILES[file]
    family, _, branch = expected.partition(" ")
    path = save(content)
    for name in FAMILIES:
        arguments = {"branch": branch} if branch and name == family else {}
        assert load_report(name, path, **arguments).ok == (name == family), name


@every_file
@pytest.mark.parametrize("first", FAMILIES)
def test_suggested_encoder_exists(file: str, first: str, save: Save) -> None:
    """Follow refusals as a user does: no advice comes twice, and the last one is an end."""
    path, tried = save(FILES[file][0]), set()
    name, arguments = first, {}
    while not (report := load_report(name, path, **arguments)).ok:
        assert (name, *arguments) not in tried, report.describe()
        tried.add((name, *arguments))
        text = report.describe()
        if suggestion := re.search(r"load it as `([\w/]+)`(?: with --branch (\w+))?", text):
            name, arguments = suggestion[1], {"branch": suggestion[2]} if suggestion[2] else {}
            if name.startswith("timm/"):
                return  # tests of timm load real sizes
        elif suggestion := re.search(r"if you know that it is `(\w+)`.*--accept", text):
            name, arguments = suggestion[1], {"accept": True}
        else:
            assert any(end in text for end in ENDS), text
            return


@every_file
def test_refusal_names_file_and_similar_encoder(file: str, save: Save) -> None:
    content, expected = FILES[file]
    path = save(content)
    for name in set(FAMILIES) - {expected.partition(" ")[0]}:
        with pytest.raises(CheckpointError) as caught:
            load_encoder(name, path)
        assert caught.value.exit_code == 4
        assert str(path) in str(caught.value)
        assert "It looks like " in str(caught.value)
        assert f"load it as `{name}`." not in str(caught.value)
        assert load_report(name, path).describe() == str(caught.value)


@pytest.mark.parametrize("name", ["mae", "ibot", "mocov3"])
def test_accept_loads_a_file_without_evidence_and_records_it(name: str, save: Save) -> None:
    path = save({"model": vit()})
    with pytest.raises(CheckpointError):
        load_encoder(name, path)
    encoder = load_encoder(name, path, accept=True)
    assert encoder.spec.options["accept"] is True
    assert load_report(name, path, accept=True).accepted
    # Where the file has evidence, the option changes nothing.
    evident = save(official(name), "evident.pth")
    assert load_encoder(name, evident, accept=True).spec == load_encoder(name, evident).spec


def test_accept_still_wants_every_tensor(save: Save) -> None:
    for content in (official("dino"), official("cae"), {"model": vit() | HEAD}):
        with pytest.raises(CheckpointError):
            load_encoder("mae", save(content), accept=True)


@pytest.mark.shared
def test_swaps_of_all_official_layouts(
    shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print which family accepts which official file: the diagonal and nothing else."""
    folders = {name: "moco_v3" if name == "mocov3" else name for name in FAMILIES}
    accepted = {
        (file, name): encoders.load_report(
            name,
            shared_dir / "fixtures" / "encoders" / folder / "checkpoint.pth",
            num_heads=3,
        ).ok
        for file, folder in folders.items()
        for name in FAMILIES
    }
    with capsys.disabled():
        print("\nfile \\ as" + "".join(f"{name:>9}" for name in FAMILIES))
        for file in FAMILIES:
            row = ("accepted" if accepted[file, name] else "-" for name in FAMILIES)
            print(f"{file:<9}" + "".join(f"{word:>9}" for word in row))
    assert [pair for pair, ok in accepted.items() if ok] == [(name, name) for name in FAMILIES]
