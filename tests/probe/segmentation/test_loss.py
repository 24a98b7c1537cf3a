"""The cheap loss against F.interpolate, F.conv2d and F.cross_entropy with autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pa.errors import UsageError
from pa.probe.segmentation import loss as module
from pa.probe.segmentation.loss import (
    LabelTiles,
    UpsampledLoss,
    pixels_per_token,
    side_weights,
)
from tests.support.upsampling import upsample

CPU = torch.device("cpu")


def random_labels(batch: int, size: int, classes: int, ignored: float) -> Tensor:
    labels = torch.randint(0, classes, (batch, size, size), dtype=torch.uint8)
    labels[torch.rand(labels.shape) < ignored] = 255
    return labels


def naive(coarse: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Summed loss and gradient of whole logits at label size."""
    leaf = coarse.clone().requires_grad_()
    logits = upsample(leaf.permute(0, 3, 1, 2), labels.shape[-1], first)
    targets = labels.long().masked_fill(labels == 255, -1)
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.detach(), gradient


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("pixels", [4, 14, 16])
@pytest.mark.parametrize("grid", [1, 2, 5])
def test_loss_and_gradient_are_those_of_the_plain_way(grid: int, pixels: int, first: int) -> None:
    torch.manual_seed(grid + pixels)
    coarse = 3 * torch.randn(2, grid, grid, 6)
    labels = random_labels(2, grid * pixels, 6, ignored=0.4)
    loss, gradient = UpsampledLoss(grid, pixels, first, CPU).sums(
        coarse, LabelTiles.of(labels, grid)
    )
    expected, expected_gradient = naive(coarse, labels, first)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_loss_is_independent_of_tiles_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    coarse, labels = torch.randn(3, 4, 4, 5), random_labels(3, 32, 5, ignored=0.2)
    tiles = LabelTiles.of(labels, 4)
    collected = []
    for elements in (1, 2**30):
        monkeypatch.setattr(module, "CPU_ELEMENTS", elements)
        collected.append(UpsampledLoss(4, 8, 4, CPU).sums(coarse, tiles))
    (first, one_gradient), (many, many_gradient) = collected
    assert first.item() == pytest.approx(many.item(), rel=1e-6)
    torch.testing.assert_close(one_gradient, many_gradient, rtol=1e-6, atol=1e-6)


def test_large_logits_overflow_nowhere() -> None:
    coarse = torch.tensor([[[[500.0, -500.0], [-500.0, 500.0]], [[0.0, 0.0], [500.0, 500.0]]]])
    labels = random_labels(1, 16, 2, ignored=0.1)
    loss, gradient = UpsampledLoss(2, 8, 1, CPU).sums(coarse, LabelTiles.of(labels, 2))
    expected, expected_gradient = naive(coarse, labels, 1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_tiles_without_a_label_are_left_out_and_pixels_counted() -> None:
    labels = torch.full((2, 8, 8), 255, dtype=torch.uint8)
    labels[1, 5, 2] = 3
    tiles = LabelTiles.of(labels, 2)
    assert tiles.at.tolist() == [4 + 2]  # the lower left token of the second window
    assert (tiles.n_valid, tiles.n_pixels) == (1, 128)
    empty = LabelTiles.of(labels[:1], 2)
    loss, gradient = UpsampledLoss(2, 4, 1, CPU).sums(torch.randn(1, 2, 2, 4), empty)
    assert loss.item() == 0
    assert not gradient.any()


def test_convolution_and_upsampling_commute() -> None:
    """The paper's order (upsample features 4×, convolve) and ours give the same logits."""
    torch.manual_seed(1)
    features, weight, bias = torch.randn(2, 12, 6, 6), torch.randn(5, 12, 1, 1), torch.randn(5)
    four = F.interpolate(features, scale_factor=4, mode="bilinear", align_corners=False)
    expected = F.interpolate(
        F.conv2d(four, weight, bias), (96, 96), mode="bilinear", align_corners=False
    )
    ours = upsample(F.conv2d(features, weight, bias), 96, first=4)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [1, 4])
def test_side_weights_enlarge_along_each_side(first: int) -> None:
    maps = torch.randn(1, 3, 5, 5)
    side = side_weights(5, 40, first)
    torch.testing.assert_close(side @ maps @ side.T, upsample(maps, 40, first))
    torch.testing.assert_close(side.sum(1), torch.ones(40))


def test_windows_that_do_not_divide_into_tokens() -> None:
    assert pixels_per_token(512, 32) == 16
    with pytest.raises(UsageError, match="512 pixels do not divide into 36 tokens"):
        pixels_per_token(512, 36)
