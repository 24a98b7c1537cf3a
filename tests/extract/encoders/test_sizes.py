"""What an encoder gives for inputs of another size than its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pa.errors import UsageError
from pa.extract.encoders.timm_models import create
from pa.extract.encoders.timm_trunk import TimmTrunk
from tests.support.checkpoints import load_encoder, official


@pytest.mark.parametrize("name", ["deit", "mocov3", "dino", "ibot", "beit", "mae", "cae"])
def test_shapes_are_announced_as_they_come(
    name: str, tmp_path: Path, save: Callable[..., Path]
) -> None:
    encoder = load_encoder(name, save(official(name)), layers=(0, 1))
    assert encoder.representations_at(encoder.transform.size) == encoder.representations
    for size in (32, 64):
        announced = encoder.representations_at(size)
        with torch.inference_mode():
            features = encoder.encode(torch.zeros(1, 3, size, size))
        assert {key: tuple(features[key].shape[1:]) for key in announced} == announced
    assert encoder.representations_at(64)["layers"] == (2, 64, 64)


def test_sizes_must_be_multiples_of_patch(save: Callable[..., Path]) -> None:
    encoder = load_encoder("deit", save(official("deit")))
    with pytest.raises(
        UsageError, match="deit cuts images into patches of 8x8 pixels; 60x60 is not a multiple"
    ):
        encoder.representations_at(60)


def test_timm_models_are_asked_once() -> None:
    convolutional = TimmTrunk("timm/test_convnext", create("test_convnext", pretrained=False), ())
    assert convolutional.n_patches_at(convolutional.size) == convolutional.n_patches
    twice = convolutional.n_patches_at(2 * convolutional.size)
    assert twice == 4 * convolutional.n_patches
    fixed = TimmTrunk("timm/test_vit", create("test_vit", pretrained=False), ())
    with pytest.raises(UsageError, match="timm/test_vit takes 160x160 images only"):
        fixed.n_patches_at(2 * fixed.size)
