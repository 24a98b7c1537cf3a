"""Nonsense on the command line is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pa.errors import CheckpointError, MissingError, UsageError
from pa.probe.linear.head import LinearHead
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.references import ridge
from tests.support.commands import Run


@pytest.mark.parametrize(
    "words",
    [
        ("linear", "--seeds", "1000000000"),
        ("linear", "--seeds", "0"),
        ("linear", "--lr", "0.1,nan", "--sweep"),
        ("linear", "--lr", "inf"),
        ("linear", "--lr", "0.1,,0.4", "--sweep"),
        ("linear", "--lr", ","),
        ("linear", "--representation", "cls,,pooled"),
        ("attentive", "--seeds", "0"),
    ],
)
def test_numbers_and_lists(pa: Run, in_empty_folder: Path, words: tuple[str, ...]) -> None:
    done = pa("probe", *words)
    assert done.code == 2
    assert "Invalid value" in done.err


def test_seed_beyond_64_bits_is_refused() -> None:
    with pytest.raises(UsageError, match="the seed must be between"):
        LinearRecipe(seed=10**20)


def test_folder_and_foreign_weights_are_not_heads(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no trained head"):
        LinearHead.load_all(tmp_path)
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="is not a file of linear heads"):
        LinearHead.load_all(tmp_path / "weights.safetensors")


def test_constant_features_have_zero_weights() -> None:
    targets = np.array([0, 1, 1, 0, 1])
    (model,) = ridge(np.ones((5, 4), np.float32), targets, 2, [0.1])
    assert np.isfinite(model.weight).all()
    np.testing.assert_allclose(model.weight, 0, atol=1e-12)
    np.testing.assert_allclose(model.bias, [0.4, 0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("linear", "--bn-eval", "batch"), "protocol paper has none"),
        (
            (
                "linear",
                "--lr",
                "0.1,1",
                "--sweep",
                "--select-split",
                "a",
                "--select-fraction",
                "0.5",
            ),
            "--select-fraction is the fraction",
        ),
        (
            ("attentive", "--lr", "0.1,1", "--select-split", "a", "--select-fraction", "0.5"),
            "--select-fraction is the fraction",
        ),
    ],
)
def test_options_without_effect(
    pa: Run, in_empty_folder: Path, words: tuple[str, ...], reason: str
) -> None:
    done = pa("probe", *words)
    assert done.code == 2
    assert reason in " ".join(done.err.split())
