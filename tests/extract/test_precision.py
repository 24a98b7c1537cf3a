"""Half precision against fp32, on encoders whose agreement is known."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pa.errors import UsageError
from pa.extract.encoders.base import Features
from pa.extract.precision import compare
from tests.support.mean_colour import MeanColour


class Coarse(MeanColour):
    """Mean colour rounded to bfloat16."""

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        pooled = super().encode(pixels, want)["pooled"]
        return Features(pooled=pooled.to(torch.bfloat16).float())


class Constant(MeanColour):
    """The same vector for every image."""

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        return Features(pooled=torch.ones(len(pixels), 3))


def test_agreement(image_tree: Callable[..., Path]) -> None:
    paths = sorted(image_tree(3, 7).rglob("*.png"))
    same, coarse, constant = compare(
        {"fp32": MeanColour(), "fp16": MeanColour(), "bf16": Coarse(), "other": Constant()}, paths
    )
    assert (same.cosine_min, same.top_k) == (pytest.approx(1.0, abs=1e-12), 1.0)
    assert 0.9999 < coarse.cosine_min < 1
    assert 0.8 < coarse.top_k <= 1
    assert constant.cosine_mean < 0.999
    assert constant.top_k < 0.8
    assert (same.dtype, same.representation, same.n, same.k) == ("fp16", "pooled", 21, 10)


def test_too_few_images_are_refused(image_tree: Callable[..., Path]) -> None:
    paths = sorted(image_tree(1, 2).rglob("*.png"))
    with pytest.raises(UsageError, match="three images or more"):
        compare({"fp32": MeanColour()}, paths)
