"""Forward passes: batches that do not fit, and the places of rows without an image."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from torch import Tensor

from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract.encoders.base import Features
from pa.extract.encoding import CPU_BATCH, Forward, default_batch, encode_pixels, spread
from tests.support.mean_colour import MeanColour


class Small(MeanColour):
    """Runs out of memory for more than `fits` regions at once."""

    fits = 3

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        if len(pixels) > self.fits:
            self.batches.append(-len(pixels))
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB")
        return super().encode(pixels, want)


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_features_are_those_of_the_encoder() -> None:
    pixels = noise(4)
    actual = encode_pixels(MeanColour(), pixels, ["pooled"])
    assert list(actual) == ["pooled"]
    np.testing.assert_allclose(actual["pooled"], pixels.mean((1, 2)) / 255, atol=1e-6)


def test_batch_beyond_memory_is_halved_permanently() -> None:
    encoder = Small()
    forward = Forward(encoder, ["pooled", "patch"])
    for n in (10, 10, 2):
        pixels = noise(n)
        actual = forward.begin(torch.from_numpy(pixels)).arrays()
        for name, values in encode_pixels(MeanColour(), pixels, ["pooled", "patch"]).items():
            np.testing.assert_allclose(actual[name], values, atol=1e-6)
    # 10 and 5 do not fit; from then on nothing larger than 3 is tried.
    assert encoder.batches == [-10, -5, 3, 2, 3, 2, 3, 3, 3, 1, 2]


def test_region_beyond_memory_is_an_error() -> None:
    encoder = Small()
    encoder.fits = 0
    with pytest.raises(UsageError, match=r"mean-colour: .* a single region .* memory of cpu"):
        Forward(encoder, ["pooled"]).begin(torch.from_numpy(noise(4)))


def test_rows_without_an_image_are_zero() -> None:
    arrays = {"pooled": np.arange(6, dtype=np.float32).reshape(2, 3)}
    valid = np.array([False, True, False, True])
    full = spread(arrays, valid, {"pooled": [3]})["pooled"]
    assert full.tolist() == [[0, 0, 0], [0, 1, 2], [0, 0, 0], [3, 4, 5]]
    nothing = spread({}, np.zeros(2, np.bool_), {"pooled": [3], "patch": [4, 3]})
    assert {name: array.shape for name, array in nothing.items()} == {
        "pooled": (2, 3),
        "patch": (2, 4, 3),
    }
    assert spread(arrays, np.ones(2, np.bool_), {"pooled": [3]}) is arrays


def test_batches_on_a_cpu_stay_small() -> None:
    assert default_batch(MeanColour(), VIEWS["image"]) == CPU_BATCH
    assert default_batch(MeanColour(), VIEWS["windows"]) == max(
        1, CPU_BATCH * 32**2 // VIEWS["windows"].input_size(MeanColour().transform) ** 2
    )
