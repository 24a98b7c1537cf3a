"""`pa encoders`, and all seven official layouts through `pa extract`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pa as package
from pa.data import images as im
from pa.data.store.reader import Store
from pa.extract import torchvision_ops
from tests.support.checkpoints import FIXTURES, official, vit
from tests.support.commands import Run
from tests.support.images import noise_image


@pytest.fixture
def seven(shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with all seven fixture checkpoints and the real sample images."""
    lines = [f'[datasets.imagenet]\nroot = "{shared_dir / "data" / "imagenet_sample_1000"}"']
    for name, folder in FIXTURES.items():
        file = shared_dir / "fixtures" / "encoders" / folder / "checkpoint.pth"
        lines.append(f'[encoders.{name}]\ncheckpoint = "{file}"\nnum_heads = 3')
    (tmp_path / "pa.toml").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.shared
def test_seven_encoders_decode_each_image_once(
    pa: Run, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    original = im.decode
    monkeypatch.setattr(im, "decode", lambda d, p: decoded.append(str(p)) or original(d, p))
    names = ",".join(FIXTURES)
    outcome = pa("extract", "--encoder", names, "--view", "image", "--limit", 64)
    assert outcome.code == 0, outcome.err
    assert len(decoded) == len(set(decoded)) == 64
    stores = {s.parts[-3]: Store.open(s.parent) for s in seven.rglob("manifest.json")}
    assert set(stores) == set(FIXTURES)
    projected = {
        name for name, store in stores.items() if "projected" in store.spec.representations
    }
    assert projected == {"mocov3", "dino", "ibot"}


@pytest.mark.shared
def test_layers_branches_and_switches_are_recorded(pa: Run, seven: Path) -> None:
    extract = ("extract", "--view", "image", "--limit", 3)
    assert pa(*extract, "--encoder", "dino", "--layers", "0,2", "--branch", "student").code == 0
    store = Store.open(next(seven.rglob("dino/**/manifest.json")).parent)
    assert store.spec.representations["layers"] == [2, 16, 96]
    assert store.read("layers").shape == (3, 2, 16, 96)
    assert store.spec.encoder["options"]["branch"] == "student"
    refused = pa(*extract, "--encoder", "dino", "--layers", "0,2")
    assert refused.code == 4
    assert "encoder.options.branch" in refused.err

    switches = ("--option", "token_order=shuffled", "--option", "seed=7")
    assert pa(*extract, "--encoder", "mae", *switches).code == 0
    store = Store.open(next(seven.rglob("mae/**/manifest.json")).parent)
    assert store.spec.encoder["options"]["token_order"] == "shuffled"
    assert store.spec.encoder["options"]["seed"] == 7


@pytest.mark.shared
def test_asking_a_backbone_for_projections(pa: Run, seven: Path) -> None:
    refused = pa("extract", "--encoder", "mae", "--view", "image", "--features", "projected")
    assert refused.code == 2
    assert "mae has no projector" in refused.err


@pytest.mark.shared
def test_check_of_a_good_file(pa: Run, seven: Path) -> None:
    good = pa("encoders", "check", "mocov3")
    assert good.code == 0
    assert "as mocov3: fits" in good.out
    assert "58 × the momentum branch" in good.out
    assert "missing 0" in good.out
    assert "mean norms on the fixed synthetic image: cls " in good.out
    report = pa("encoders", "check", "mocov3", "--json").json
    assert report["ok"]
    assert len(report["matched"]) == 58


@pytest.mark.shared
def test_check_of_wrong_and_damaged_files(pa: Run, seven: Path, shared_dir: Path) -> None:
    mae = shared_dir / "fixtures" / "encoders" / "mae" / "checkpoint.pth"
    wrong = pa("encoders", "check", "dino", "--checkpoint", mae)
    assert wrong.code == 4
    assert "DOES NOT FIT" in wrong.out
    assert "load it as `mae`" in wrong.out
    (seven / "cut.pth").write_bytes(mae.read_bytes()[:50_000])
    cut = pa("encoders", "check", "mae", "--checkpoint", seven / "cut.pth", "--json")
    assert cut.code == 4
    assert not cut.json["ok"]
    assert "cut.pth" in cut.json["problem"]


@pytest.mark.shared
def test_precision_on_real_images(pa: Run, seven: Path, shared_dir: Path) -> None:
    folder = shared_dir / "data" / "CUB_200_2011_320px" / "images"
    checked = pa("encoders", "check", "ibot", "--precision", folder, "--limit", 12, "--json")
    entries = {(e["dtype"], e["representation"]): e for e in checked.json["precision"]}
    assert entries["fp16", "pooled"]["cosine_min"] > 0.999
    assert entries["bf16", "projected"]["n"] == 12
    assert (
        "same top 10" in pa("encoders", "check", "ibot", "--precision", folder, "--limit", 12).out
    )


def test_list(pa: Run, workspace: Path) -> None:
    shown = pa("encoders", "list")
    assert shown.code == 0
    for name in FIXTURES:
        assert name in shown.out
    listed = pa("encoders", "list", "--json").json["encoders"]
    assert [entry["name"] for entry in listed] == list(FIXTURES)
    assert all(entry["checkpoint"] is None for entry in listed)
    folder = workspace / "checkpoints" / "mae"
    folder.mkdir(parents=True)
    (folder / "mae_pretrain_vit_base.pth").write_bytes(b"x")
    listed = pa("encoders", "list", "--json").json["encoders"]
    actual = {entry["name"]: entry["checkpoint"] for entry in listed}
    assert actual["mae"] == str(folder / "mae_pretrain_vit_base.pth")


def test_fetch_without_an_address(pa: Run, workspace: Path) -> None:
    refused = pa("encoders", "fetch", "cae")
    assert refused.code == 3
    assert f"{workspace / 'checkpoints' / 'cae' / 'cae_base_1600ep.pth'}" in refused.err


def test_bad_values_of_options(pa: Run, workspace: Path) -> None:
    assert "whole numbers with commas" in pa("extract", "--layers", "1,x").err
    assert "'seed' is not NAME=VALUE" in pa("extract", "--option", "seed").err


@pytest.mark.shared
def test_python_interface_loads_encoder(shared_dir: Path) -> None:
    import torch

    folder = shared_dir / "fixtures" / "encoders" / "moco_v3"
    encoder = package.load_encoder("mocov3", folder / "checkpoint.pth", num_heads=3)
    pixels = torch.from_numpy(np.load(folder / "inputs.npy"))
    features = encoder.encode(pixels)
    expected = np.load(folder / "expected.npz")
    assert isinstance(features, package.Features)
    assert np.abs(features["projected"].numpy() - expected["proj"]).max() < 1e-5
    assert np.abs(features["pooled"].numpy() - expected["patch_mean"]).max() < 1e-5
    assert encoder.transform.interpolation == "bilinear"
    assert json.loads(json.dumps(encoder.spec.to_json()))["name"] == "mocov3"
    with pytest.raises(AttributeError, match="module 'pa' has no attribute 'nonsense'"):
        _ = package.nonsense  # type: ignore[attr-defined]


def photographs(folder: Path) -> Path:
    (folder / "photographs" / "class").mkdir(parents=True)
    for number in range(2):
        noise_image(number, (64, 64)).save(folder / "photographs" / "class" / f"{number}.jpg")
    return folder / "photographs"


def test_impossible_layers_leave_nothing_behind(pa: Run, tmp_path: Path) -> None:
    torchvision_ops.ensure()
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    extract = (
        *("-w", tmp_path, "extract", "--encoder", "timm/test_resnet", "--dataset", "folder"),
        *("--checkpoint", tmp_path / "resnet.pth", "--root", photographs(tmp_path)),
        *("--view", "image"),
    )
    refused = pa(*extract, "--layers", "0")
    assert refused.code == 2
    assert "--layers" in refused.err
    assert not list(tmp_path.rglob("spec.json"))
    assert pa(*extract).code == 0


def test_check_of_weights_that_are_not_finite(pa: Run, tmp_path: Path) -> None:
    content = official("mae")
    content["model"]["norm.weight"][0] = float("nan")
    torch.save(content, tmp_path / "nan.pth")
    check = ("encoders", "check", "mae", "--num-heads", 1, "--checkpoint", tmp_path / "nan.pth")
    refused = pa(*check)
    assert refused.code == 4
    assert "norm.weight" in refused.out
    assert pa(*check, "--json").json["not_finite"] == ["norm.weight"]


@pytest.mark.parametrize("source", ["option", "setting"])
def test_accept_and_heads_from_options_and_settings(pa: Run, tmp_path: Path, source: str) -> None:
    """A file without evidence is taken when asked to, and the store's command asks again."""
    torch.save({"model": vit()}, tmp_path / "vit.pth")
    (tmp_path / "pa.toml").write_text(
        '[encoders.mae]\ncheckpoint = "vit.pth"\n'
        + ("accept = true\nnum_heads = 2\n" if source == "setting" else "")
    )
    options = ("--accept", "--num-heads", 2) if source == "option" else ()
    extract = (
        *("-w", tmp_path, "extract", "--encoder", "mae", "--dataset", "folder"),
        *("--root", photographs(tmp_path), "--view", "image"),
    )
    if source == "option":
        assert pa(*extract).code == 4
    outcome = pa(*extract, *options)
    assert outcome.code == 0, outcome.err
    store = Store.open(next(tmp_path.rglob("manifest.json")).parent)
    assert store.spec.encoder["options"]["accept"] is True
    assert store.spec.encoder["architecture"]["heads"] == 2
    assert "--accept --num-heads 2" in store.command
    # Searching loads the same network again, from what the store records.
    image = tmp_path / "photographs" / "class" / "0.jpg"
    output = pa("-w", tmp_path, "search", "--image", image, "-k", 1)
    assert output.code == 0, output.err
