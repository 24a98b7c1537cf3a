"""The device of the GPU tests: `cuda`, or the one that TEST_DEVICE names.

With TEST_DEVICE=cpu the same code compares the CPU with itself, so that these tests cannot rot on
machines without a GPU.
"""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    name = os.environ.get("TEST_DEVICE", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return name
