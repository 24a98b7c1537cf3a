"""Install and run the examples of docs/extending.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

import pa
from pa import config
from pa.data.store import find as stores
from pa.errors import UnknownNameError
from pa.extract.encoders import ENCODERS
from pa.extract.encoders.vit import VitShape, plain_vit
from pa.registry import Registry
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "extending.md"


def install(folder: Path, name: str, entry_points: str) -> None:
    """Write the metadata that `pip install` writes for a package."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """Return a folder with every example of the page and its entry points."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    points = []
    for block in blocks(PAGE):
        if block.mark == "file":
            (folder / block.name).write_text(block.text)
        if block.mark == "entry points":
            group, entry = block.text.strip().splitlines()
            name = group.removeprefix('[project.entry-points."').removesuffix('"]')
            points.append(f"[{name}]\n{entry.replace(chr(34), '')}")
    install(folder, "pa-examples", "\n".join(points))
    return folder


@pytest.fixture
def run(tmp_path: Path, plugins: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{plugins}:{Path(pa.__file__).parents[1]}"}
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def checkpoint(path: Path) -> None:
    """Write a checkpoint of the example's method: a tiny random ViT and a decoder."""
    generator = torch.Generator().manual_seed(0)
    model = plain_vit(VitShape(64, 2, 1, patch=16, grid=2, mlp_width=128))
    tensors = {
        f"encoder.{name}": torch.randn(tensor.shape, generator=generator) * 0.1
        for name, tensor in model.state_dict().items()
    }
    torch.save({"model": {**tensors, "decoder.weight": torch.zeros(2, 2)}}, path)


def test_plugin_encoder_loads_its_checkpoint(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    checkpoint(tmp_path / "mymethod_vitb16.pth")
    checked = run(
        "-m", "pa", "encoders", "check", "mymethod", "--checkpoint", "mymethod_vitb16.pth"
    )
    assert checked.returncode == 0, checked.stderr
    assert "mymethod" in checked.stdout
    assert "the decoder, pretraining only" in checked.stdout

    checkpoint_without = torch.load(tmp_path / "mymethod_vitb16.pth", weights_only=True)
    del checkpoint_without["model"]["decoder.weight"]
    torch.save(checkpoint_without, tmp_path / "other.pth")
    refused = run("-m", "pa", "encoders", "check", "mymethod", "--checkpoint", "other.pth")
    assert refused.returncode == 4
    assert "not a pretraining checkpoint of MyMethod" in refused.stdout + refused.stderr


def test_plugin_dataset_is_extracted_and_probed(
    tmp_path: Path,
    image_tree: Callable[..., Path],
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    checkpoint(tmp_path / "mymethod_vitb16.pth")
    root = image_tree(labels=3, per_label=4, name="data/images").parent
    files = sorted(
        path.relative_to(root / "images").as_posix() for path in root.rglob("images/*/*.png")
    )
    table = pl.DataFrame({"file": files, "label": [file.split("/")[0] for file in files]})
    table.write_csv(root / "train.csv")

    checked = run("-m", "pa", "datasets", "check", "listed", "--root", "data", "--json")
    assert checked.returncode == 0, checked.stderr
    extracted = run(
        *("-m", "pa", "extract", "--encoder", "mymethod"),
        *("--checkpoint", "mymethod_vitb16.pth", "--dataset", "listed", "--root", "data"),
        *("--split", "train", "--view", "image"),
    )
    assert extracted.returncode == 0, extracted.stderr
    features = config.load(tmp_path).features
    store = stores.choose(features, stores.StoreSelector())
    assert store.rows["label"].to_list() == table["label"].to_list()
    assert store.encoder == "mymethod"

    probed = run("plugins/nearest_mean.py", ".", "pooled")
    assert probed.returncode == 0, probed.stderr
    result = json.loads(Path(tmp_path, probed.stdout.splitlines()[-1]).read_text())
    test_rows = result["counts"]["test_rows"]
    assert 0 < test_rows < len(files)
    assert result["scores"]["accuracy"]["n"] == test_rows


def test_plugin_with_builtin_name_is_refused(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], plugins: Path
) -> None:
    install(plugins, "impostor", "[pa.encoders]\ndino = pa_mymethod:FAMILY\n")
    listed = run("-m", "pa", "encoders", "list")
    assert listed.returncode == 1
    assert "impostor 1.0" in listed.stderr
    assert "'dino'" in listed.stderr
    assert "Traceback" not in listed.stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("absent_module:FAMILY", "ModuleNotFoundError"),
        ("pa_mymethod:build", "is a function"),
    ],
)
def test_broken_plugin_is_reported_without_traceback(
    run: Callable[..., subprocess.CompletedProcess[str]], plugins: Path, value: str, words: str
) -> None:
    install(plugins, "broken", f"[pa.encoders]\nbroken = {value}\n")
    checked = run("-m", "pa", "encoders", "check", "broken", "--checkpoint", "x.pth")
    assert checked.returncode == 1
    assert "broken 1.0" in checked.stderr
    assert words in checked.stderr
    assert "Traceback" not in checked.stderr


def test_registry_returns_builtin_names_without_entry_points() -> None:
    registry = Registry("shape", {"square": 4}, group="pa.no-such-group", of=int)
    assert registry["square"] == 4
    assert list(registry) == ["square"]
    assert len(registry) == 1
    with pytest.raises(UnknownNameError, match="square"):
        registry["sqare"]
    assert "circle" not in registry
    assert len(ENCODERS) == len(list(ENCODERS))
