"""Files: containers and formats that are read, and files that are none."""

from __future__ import annotations

import pickle
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pa.errors import CheckpointError, MissingError
from tests.support.checkpoints import load_encoder, load_report, official, vit

Save = Callable[..., Path]


@pytest.mark.parametrize("name", ["dino", "ibot", "beit", "mae", "cae"])
def test_training_arguments_are_allowed(name: str, save: Save) -> None:
    assert load_encoder(name, save(official(name) | {"args": Namespace(lr=1e-3), "epoch": 3}))


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("deit", official("deit")["model"]),
        ("dino", vit()),
        ("ibot", official("ibot")["teacher"]),
        ("mae", official("mae")["model"]),
        ("beit", official("beit")["model"]),
        ("cae", official("cae")["model"]),
    ],
)
def test_safetensors_and_pickles_give_the_same(
    name: str, flat: dict[str, Tensor], save: Save, tmp_path: Path, pixels: Tensor
) -> None:
    path = tmp_path / "flat.safetensors"
    save_file(flat, path)
    flat_encoder, encoder = load_encoder(name, path), load_encoder(name, save(official(name)))
    assert flat_encoder.spec.weights_sha256 != encoder.spec.weights_sha256
    for representation in ("cls", "patch"):
        ours = flat_encoder.encode(pixels, {representation})[representation]
        assert torch.equal(ours, encoder.encode(pixels, {representation})[representation])


def test_old_torch_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(official("mae"), path, _use_new_zipfile_serialization=False)
    assert load_report("mae", path).ok


class Harmless:
    """Stands for any class that is not a tensor."""


def test_pickle_with_other_objects_is_refused(save: Save) -> None:
    path = save(official("mae") | {"model_class": Harmless()})
    with pytest.raises(CheckpointError) as caught:
        load_encoder("mae", path)
    assert "reading them could run code" in str(caught.value)
    assert "Harmless" in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("kept", [1.0, 0.9, 0.5, 0.01])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files(kept: float, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    if kind == "safetensors":
        save_file(official("mae")["model"], path)
    else:
        torch.save(official("mae"), path, _use_new_zipfile_serialization=kind == "zip")
    size = int(path.stat().st_size * kept)
    path.write_bytes(path.read_bytes()[:size])
    report = load_report("mae", path)
    assert report.ok == (kept == 1.0)
    if kept < 1.0:
        assert (
            f"{path} cannot be read: it is truncated or damaged ({size:,} bytes" in report.problem
        )
        assert "Download it again" in report.problem
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            load_encoder("mae", path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "found an empty file (0 bytes)"),
        (b"<!DOCTYPE html><html>", "found HTML (a download page or an error page"),
        (b"version https://git-lfs.github.com/spec/v1", "found text that begins with 'version"),
        (b"\x93NUMPY\x01\x00", "found the bytes 93 4e 55 4d 50 59 01 00"),
    ],
)
def test_foreign_files_are_not_checkpoints(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mae_pretrain_vit_base.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_encoder("mae", path)
    assert f"{path} is not a checkpoint" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, torch.zeros(3)])
def test_checkpoint_must_be_a_dict(content: Any, save: Save) -> None:
    with pytest.raises(CheckpointError, match="where a non-empty dict of tensors was expected"):
        load_encoder("mae", save(content))


def test_plain_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_encoder("mae", path)


def unusual(kind: str) -> Tensor:
    """A tensor whose numbers are not stored as a dense array."""
    dense = torch.ones(64, 64)
    make = {
        "sparse": dense.to_sparse,
        "sparse_csr": dense.to_sparse_csr,
        "quantized": lambda: torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
        "meta": lambda: dense.to("meta"),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that some kinds are in beta or deprecated
        return make()


@pytest.mark.parametrize("kind", ["sparse", "sparse_csr", "quantized", "meta"])
@pytest.mark.parametrize("name", ["mae", "timm/test_vit"])
def test_tensors_that_are_not_dense_are_named(kind: str, name: str, save: Save) -> None:
    content = official("mae")
    content["model"]["blocks.1.attn.proj.weight"] = unusual(kind)
    with pytest.raises(CheckpointError) as caught:
        load_encoder(name, save(content))
    assert "'model/blocks.1.attn.proj.weight'" in str(caught.value)
    assert kind in str(caught.value)


def test_missing_files_say_what_to_get_from_where(tmp_path: Path) -> None:
    for values, words in (
        (None, "mae needs a checkpoint file. MAE ViT-B/16, 1600 epochs is published as"),
        (tmp_path / "nowhere.pth", "nowhere.pth does not exist. MAE ViT-B/16"),
        (tmp_path, "is a folder, not a file"),
    ):
        with pytest.raises(MissingError) as caught:
            load_encoder("mae", values)
        assert caught.value.exit_code == 3
        assert words in str(caught.value)
        assert "mae_pretrain_vit_base.pth" in str(caught.value)
        assert "https://dl.fbaipublicfiles.com/mae/pretrain/" in str(caught.value)
