"""What the tests of encoders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pa.extract import torchvision_ops
from tests.support.checkpoints import SIZE


@pytest.fixture(scope="session", autouse=True)
def operators() -> None:
    torchvision_ops.ensure()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for each other's threads, more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    """Save any content as a checkpoint file and return its path."""

    def write(content: Any, name: str = "checkpoint.pth") -> Path:
        path = tmp_path / name
        torch.save(content, path)
        return path

    return write


@pytest.fixture(scope="session")
def pixels() -> Tensor:
    """Two normalised images (2, 3, 32, 32)."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE))).float()
