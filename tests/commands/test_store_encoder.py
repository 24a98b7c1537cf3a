"""The encoder of a store, loaded again: from the recorded checkpoint, wherever the file is now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from pa import config as settings
from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.explore.server import make_app
from pa.extract.encoders import load_encoder
from pa.extract.stores import ExtractOptions, open_store
from pa.workspace import Workspace
from tests.support.checkpoints import official
from tests.support.commands import Run
from tests.support.images import noise_image

EXTRACT = ("extract", "--encoder", "timm/test_vit", "--dataset", "folder", "--view", "image")


@pytest.fixture
def moving(
    pa: Run,
    weights: dict[str, Path],
    image_tree: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A checkpoint file in a workspace without pa.toml, with a store and a head made from it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    checkpoint = folder / "weights.safetensors"
    shutil.copy(weights["test_vit"], checkpoint)
    flags = ("--checkpoint", "weights.safetensors", "--root", image_tree(3, 6), "--device", "cpu")
    assert pa(*EXTRACT, *flags).code == 0
    assert pa("probe", "linear", "--epochs", 1).code == 0
    noise_image(7).save("query.png")
    return checkpoint


def calls(folder: Path) -> list[tuple[object, ...]]:
    (head,) = folder.rglob("results/**/*.safetensors")
    return [
        ("search", "--image", "query.png", "-k", 3, "--json"),
        ("probe", "predict", "--image", "query.png", "--head", head, "--json"),
    ]


def test_recorded_checkpoint_is_used(pa: Run, moving: Path) -> None:
    for call in calls(moving.parent):
        assert pa(*call).code == 0


def test_moved_checkpoint_is_named(pa: Run, moving: Path) -> None:
    before = [pa(*call).json for call in calls(moving.parent)]
    elsewhere = moving.rename(moving.parent.parent / "elsewhere.safetensors")
    for call, answer in zip(calls(moving.parent), before, strict=True):
        missing = pa(*call)
        assert missing.code == 3
        (store,) = moving.parent.rglob("spec.json")
        sha256 = Store.open(store.parent).spec.encoder["weights_sha256"]
        assert str(moving) in missing.err
        assert sha256 in missing.err
        assert "--checkpoint FILE" in missing.err
        assert pa(*call, "--checkpoint", elsewhere).json == answer
    (moving.parent / "pa.toml").write_text(
        f'[encoders."timm/test_vit"]\ncheckpoint = "{elsewhere}"\n'
    )
    for call, answer in zip(calls(moving.parent), before, strict=True):
        assert pa(*call).json == answer


def test_replaced_checkpoint_is_refused(pa: Run, moving: Path, weights: dict[str, Path]) -> None:
    other = weights["test_efficientnet"]
    for call in calls(moving.parent):
        values = pa(*call, "--checkpoint", other)
        assert values.code == 4
        assert str(other) in values.err
    shutil.copy(other, moving)
    for call in calls(moving.parent):
        replaced = pa(*call)
        assert replaced.code == 4
        assert replaced.err.count("SHA-256") == 2  # expected, found


def test_settings_that_name_other_weights(pa: Run, moving: Path, weights: dict[str, Path]) -> None:
    """The file is chosen by its SHA-256: settings of today do not change what a store was."""
    before = [pa(*call).json for call in calls(moving.parent)]
    other = weights["test_efficientnet"]
    (moving.parent / "pa.toml").write_text(f'[encoders."timm/test_vit"]\ncheckpoint = "{other}"\n')
    for call, answer in zip(calls(moving.parent), before, strict=True):
        assert pa(*call).json == answer
    moving.unlink()
    for call in calls(moving.parent):
        assert pa(*call).code == 4


def test_explorer_accepts_checkpoint(pa: Run, moving: Path) -> None:
    pa("index", "build")
    elsewhere = moving.rename(moving.parent.parent / "elsewhere.safetensors")
    config = settings.load(moving.parent)
    image = Path("query.png").read_bytes()
    answers = {}
    for name, checkpoints in (("without", ()), ("with", (elsewhere,))):
        with TestClient(
            make_app(Workspace(config.workspace), checkpoints=checkpoints), "http://localhost"
        ) as client:
            (gallery,) = client.get("/api/workspace").json()["galleries"]
            column = next(c["id"] for c in gallery["columns"] if c["representation"] == "pooled")
            query = {"name": "query.png", "box": "0,0,80,60", "column": column, "k": 3}
            address = f"/api/galleries/{gallery['id']}/own/neighbours"
            answers[name] = client.post(address, params=query, content=image)
    assert answers["without"].json()["error"] == "missing"
    assert "pa explore --checkpoint FILE" in answers["without"].json()["message"]
    assert len(answers["with"].json()[0]["result"]["neighbours"]) == 3


def test_explorer_refuses_checkpoint_of_no_store(
    pa: Run, moving: Path, weights: dict[str, Path]
) -> None:
    assert pa("explore", "--checkpoint", weights["test_efficientnet"]).code == 4


@pytest.mark.parametrize("name", ["deit", "mocov3", "dino", "beit", "mae", "cae", "ibot"])
def test_encoder_is_loaded_as_recorded(
    name: str, image_tree: Callable[..., Path], tmp_path: Path
) -> None:
    """Heads, branch, blocks and options come from the store, not from the settings."""
    checkpoint = tmp_path / "checkpoint.pth"
    torch.save(official(name), checkpoint)
    arguments: dict[str, Any] = {"layers": [0, 1]}
    if name != "beit":  # its table of relative positions states the heads
        arguments["num_heads"] = 2
    if name == "dino":
        arguments["branch"] = "student"
    if name == "mae":
        arguments |= {"token_order": "shuffled", "seed": 3}
    encoder = load_encoder(name, checkpoint, **arguments)
    images = datasets.load("photos", "folder", image_tree())
    view = VIEWS["image"]
    store = open_store(
        encoder, images, view, view.rows(images), tmp_path / "features", ExtractOptions()
    ).store
    (tmp_path / "pa.toml").write_text('device = "cpu"\ndtype = "bf16"\n')
    again = Workspace(tmp_path).encoder_of(store, "pa search")
    assert again.spec == encoder.spec
