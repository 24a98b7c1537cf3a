"""Two matrices against the released procedure, window by window, with F.interpolate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pa.data.views.windows import Window, sliding
from pa.errors import UsageError
from pa.probe.segmentation import predict as module
from pa.probe.segmentation.predict import SlidingPrediction, label_shares
from tests.support.upsampling import upsample

Size = tuple[int, int]


def slide(coarse: Tensor, windows: Sequence[Window], size: Size, first: int) -> Tensor:
    """mmsegmentation's slide_inference: upsample, add, count, divide, resize; (H, W, C)."""
    width, height = windows[0].canvas
    total, count = torch.zeros(coarse.shape[-1], height, width), torch.zeros(height, width)
    for window, grid in zip(windows, coarse, strict=True):
        full = upsample(grid.permute(2, 0, 1)[None], window.size, first)[0]
        x0, y0, x1, y1 = window.inside
        total[:, y0:y1, x0:x1] += full[:, : y1 - y0, : x1 - x0]
        count[y0:y1, x0:x1] += 1
    assert count.min() > 0
    resized = F.interpolate(
        (total / count)[None], (size[1], size[0]), mode="bilinear", align_corners=False
    )
    return resized[0].permute(1, 2, 0)


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize(
    ("canvas", "size"),
    [
        ((32, 32), (32, 32)),  # one window
        ((75, 32), (140, 61)),  # overlapping, shifted at the right border
        ((32, 90), (20, 55)),  # made smaller in the end
        ((70, 66), (200, 190)),  # rows and columns
        ((20, 32), (33, 50)),  # narrower than a window: padded
        ((11, 17), (11, 17)),  # smaller than a window along both sides
    ],
)
def test_logits_are_those_of_the_released_procedure(canvas: Size, size: Size, first: int) -> None:
    torch.manual_seed(0)
    windows = list(sliding(canvas, 32, 21))
    coarse = torch.randn(len(windows), 4, 4, 5)
    prediction = SlidingPrediction(windows, size, 4, first)
    expected = slide(coarse, windows, size, first)
    torch.testing.assert_close(prediction.logits(coarse), expected, rtol=1e-4, atol=1e-4)
    agree = prediction.classes(coarse) == expected.argmax(-1).numpy()
    assert agree.mean() > 0.999  # all but ties to the last bit


def test_rows_taken_together_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    windows = list(sliding((75, 40), 32, 21))
    coarse = torch.randn(len(windows), 4, 4, 3)
    prediction = SlidingPrediction(windows, (150, 80), 4, 1)
    collected = []
    for elements in (1, 1000, 2**30):
        monkeypatch.setattr(module, "CPU_ELEMENTS", elements)
        collected.append(prediction.classes(coarse))
    np.testing.assert_array_equal(collected[0], collected[2])
    np.testing.assert_array_equal(collected[1], collected[2])


def test_windows_that_do_not_cover_the_image() -> None:
    windows = list(sliding((75, 32), 32, 21))
    for wrong in (windows[1:], windows[:-1], windows[::-1]):
        with pytest.raises(UsageError, match="do not cover"):
            SlidingPrediction(wrong, (75, 32), 4, 1)


def test_label_shares_count_the_pixels_of_each_token() -> None:
    classes = np.zeros((32, 32), np.uint8)
    classes[:16, :24] = 1
    classes[16:, :] = 255
    shares = label_shares(classes, list(sliding((32, 32), 32, 21)), 2, 2)
    assert shares.shape == (1, 2, 2, 2)
    np.testing.assert_allclose(shares[0, 0], [[0, 1], [0.5, 0.5]])
    np.testing.assert_allclose(shares[0, 1], 0)
