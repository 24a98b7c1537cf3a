"""The prototype projector against explicit logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.checkpoints import BOTTLENECK, load_encoder, official, prototype_head

Save = Callable[..., Path]


@pytest.mark.parametrize("plain", [False, True])
def test_projected_equals_the_explicit_logits(plain: bool, save: Save, pixels: Tensor) -> None:
    content, head = official("dino"), prototype_head("")
    length, direction = head["last_layer.weight_g"], head["last_layer.weight_v"]
    weight = length * direction / direction.norm(dim=1, keepdim=True)  # (C, Z)
    if plain:
        for key in ("weight_g", "weight_v"):
            del content["teacher"][f"head.last_layer.{key}"]
        content["teacher"]["head.last_layer.weight"] = weight
    encoder = load_encoder("dino", save(content))
    features = encoder.encode(pixels, {"bottleneck", "projected"})
    assert features["projected"].shape == (2, BOTTLENECK)
    assert torch.allclose(features["bottleneck"].norm(dim=1), torch.ones(2))
    logits = features["bottleneck"].double() @ weight.double().T
    ours = features["projected"].double()
    assert torch.allclose(ours @ ours.T, logits @ logits.T, rtol=0, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity
    assert torch.allclose(cosine(ours[0], ours[1], 0), cosine(logits[0], logits[1], 0), atol=1e-6)


def test_bottleneck_wider_than_prototypes_is_accepted(save: Save, pixels: Tensor) -> None:
    content = official("dino")  # WᵀW has no full rank: its root exists all the same
    for key in ("weight_g", "weight_v"):
        del content["teacher"][f"head.last_layer.{key}"]
    weight = torch.randn(3, BOTTLENECK, generator=torch.Generator().manual_seed(0))
    content["teacher"]["head.last_layer.weight"] = weight
    features = load_encoder("dino", save(content)).encode(pixels)
    logits = features["bottleneck"] @ weight.T
    gram = features["projected"] @ features["projected"].T
    assert torch.allclose(gram, logits @ logits.T, rtol=0, atol=1e-5)
