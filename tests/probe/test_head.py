from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pa.errors import CheckpointError, MismatchError, MissingError
from pa.probe.head import LinearHead

HEAD = LinearHead(
    weight=np.array([[1, 0], [0, 1], [-1, -1]], dtype=np.float32),
    bias=np.array([0, 0.5, 0], dtype=np.float32),
    classes=("œil", "bec", "aile"),
    representation="cls",
    fingerprint="ab" * 32,
)


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


def test_another_width() -> None:
    with pytest.raises(MismatchError, match=r"reads features of shape \(n, 2\), not \(4, 3\)"):
        HEAD.logits(np.zeros((4, 3), dtype=np.float32))


def test_files_that_are_no_heads(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(MissingError, match=r"no trained head at .*`pa probe linear` makes one"):
        LinearHead.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is not a linear head of pa"):
        LinearHead.load(path)
    save_file({"weight": HEAD.weight}, path)
    with pytest.raises(CheckpointError, match="head format None, this version reads 1"):
        LinearHead.load(path)
    save_file({"weight": HEAD.weight}, path, {"format": "1", "classes": "[]"})
    with pytest.raises(CheckpointError, match="is not a linear head of pa"):
        LinearHead.load(path)
