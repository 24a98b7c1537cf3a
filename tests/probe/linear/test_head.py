from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pa.errors import CheckpointError, MismatchError, MissingError, VerificationError
from pa.probe.heads import kind_of, save_heads
from pa.probe.linear.head import BatchNorm, LinearHead
from pa.probe.tensorfile import tensor_bytes

HEAD = LinearHead(
    weight=np.array([[1, 0], [0, 1], [-1, -1]], dtype=np.float32),
    bias=np.array([0, 0.5, 0], dtype=np.float32),
    classes=("œil", "bec", "aile"),
    representation="cls",
    fingerprint="ab" * 32,
)


def save_file(
    arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None
) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    path.write_bytes(tensor_bytes(tensors, metadata or {"by": "another"}))


def test_logits_by_hand() -> None:
    features = np.array([[2, 1], [-3, 0]], dtype=np.float32)
    np.testing.assert_array_equal(HEAD.logits(features), [[2, 1.5, -3], [-3, 0.5, 3]])
    assert HEAD.predict(features).tolist() == [0, 2]


def test_round_trip(tmp_path: Path) -> None:
    # A transposed view is not contiguous; safetensors would write its memory in the wrong order.
    wide = LinearHead(np.asfortranarray(HEAD.weight), HEAD.bias, HEAD.classes, "cls", "cd")
    wide.save(tmp_path / "head.safetensors")
    loaded = LinearHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded.weight, HEAD.weight)
    np.testing.assert_array_equal(loaded.bias, HEAD.bias)
    assert (loaded.classes, loaded.representation, loaded.fingerprint) == (
        HEAD.classes,
        "cls",
        "cd",
    )


def test_head_refuses_other_width() -> None:
    with pytest.raises(MismatchError, match=r"reads features of shape \(n, 2\), not \(4, 3\)"):
        HEAD.logits(np.zeros((4, 3), dtype=np.float32))


def test_foreign_files_are_not_heads(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(MissingError, match=r"no trained head at .*`pa probe linear`"):
        LinearHead.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is not a file of linear heads"):
        LinearHead.load(path)
    save_file({"weight": HEAD.weight}, path, {"kind": "linear", "format": "1"})
    with pytest.raises(CheckpointError, match="head format 1, this version reads 2"):
        LinearHead.load(path)
    save_file({"weight": HEAD.weight}, path, {"kind": "linear", "format": "2", "classes": "[]"})
    with pytest.raises(CheckpointError, match="is not a file of linear heads"):
        LinearHead.load(path)


def test_batch_norm_is_applied_before_head(tmp_path: Path) -> None:
    mean, var = np.array([1, 2], np.float32), np.array([3, 8], np.float32)
    head = replace(HEAD, norm=BatchNorm(mean, var, 1.0))
    features = np.array([[3, 5]], np.float32)
    np.testing.assert_allclose(head.logits(features), HEAD.logits(np.ones((1, 2), np.float32)))
    head.save(tmp_path / "head.safetensors")
    loaded = LinearHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded.logits(features), head.logits(features))


def test_file_holds_heads_of_all_seeds(tmp_path: Path) -> None:
    norm = BatchNorm(np.zeros(2, np.float32), np.ones(2, np.float32), 1e-6)
    heads = [replace(HEAD, weight=scale * HEAD.weight, norm=norm) for scale in (1, 2, 3)]
    save_heads(tmp_path / "heads.safetensors", heads)
    loaded = LinearHead.load_all(tmp_path / "heads.safetensors")
    assert len(loaded) == 3
    for saved, values in zip(heads, loaded, strict=True):
        np.testing.assert_array_equal(values.weight, saved.weight)
        assert values.norm is not None
        np.testing.assert_array_equal(values.norm.var, norm.var)
    with safe_open(tmp_path / "heads.safetensors", framework="numpy") as file:
        assert file.get_tensor("weight").shape == (3, 3, 2)
        assert file.get_tensor("bn_mean").shape == (3, 2)


def test_probabilities_are_a_softmax() -> None:
    features = np.array([[2, 1], [300, 0]], dtype=np.float32)
    shares = HEAD.probabilities(features)
    expected = np.exp([2, 1.5, -3]) / np.exp([2, 1.5, -3]).sum()
    np.testing.assert_allclose(shares[0], expected, rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)


def test_tensors_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    fields = {
        "kind": "linear",
        "format": "2",
        "classes": "[]",
        "representation": "cls",
        "fingerprint": "ab",
        "store_checksum": "",
    }
    save_file({"weight": np.zeros(3, np.float32), "bias": np.zeros(3, np.float32)}, path, fields)
    with pytest.raises(CheckpointError, match=r"is not a file of linear heads \(a tensor of shape"):
        LinearHead.load(path)


def test_heads_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    HEAD.save(path)
    assert kind_of(path) == "linear"
    save_file({"weight": HEAD.weight, "bias": HEAD.bias}, path, {"kind": "attentive"})
    assert kind_of(path) == "attentive"
    with pytest.raises(CheckpointError, match="holds attentive heads, expected linear heads"):
        LinearHead.load(path)
    with pytest.raises(MissingError, match="no trained head at"):
        kind_of(tmp_path / "none.safetensors")
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is not a file of trained heads"):
        kind_of(path)


def test_flipped_bit_of_head_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    HEAD.save(path)
    whole = path.read_bytes()
    for index in range(len(whole)):
        data = bytearray(whole)
        data[index] ^= 1 << index % 8
        path.write_bytes(data)
        with pytest.raises((VerificationError, CheckpointError)):
            LinearHead.load(path)
