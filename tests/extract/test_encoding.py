"""Forward passes: batches that do not fit, rows without an image, and memory that is kept."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Collection

import numpy as np
import pytest
import torch
from torch import Tensor

from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract import encoding
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


# Counts the pages that the kernel must clear again, in a process of its own.
SCRIPT = """
import resource, sys
import numpy as np
from pa.extract.encoding import freed_memory_kept

BLOCK = 40 * 2**20

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(BLOCK, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

outside = faults()
with freed_memory_kept():
    np.ones(BLOCK, np.uint8)
    inside, held = faults(), resident()
print(outside, inside, held - resident(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts Linux's page faults")
def test_blocks_are_not_cleared_again() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outside, inside, returned, after = map(int, done.stdout.split())
    assert inside * 20 < outside
    assert returned > 30 * 2**20  # the block is the kernel's again
    assert after * 2 > outside


def test_other_c_libraries_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def __getattr__(self, name: str) -> object:
            raise AttributeError(name)

    monkeypatch.setattr(encoding.ctypes, "CDLL", lambda _: Musl())
    with encoding.freed_memory_kept():
        assert bytes(10) == b"\0" * 10
