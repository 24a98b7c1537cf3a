"""A workspace in which the study of the paper can run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.checkpoints import official
from tests.support.trees import write_cub

PARTS = ("right eye", "right leg", "left wing", "tail")


@pytest.fixture
def study_workspace(tmp_path: Path) -> Path:
    """CUB's layout with 12 birds, and a checkpoint of a tiny DeiT."""
    generator = np.random.default_rng(3)
    birds = [
        {part: tuple(generator.integers(30, 270, 2).astype(float).tolist()) for part in PARTS}
        for _ in range(12)
    ]
    write_cub(tmp_path / "cub", birds, train=range(1, 7), size=(400, 300))
    torch.save(official("deit"), tmp_path / "deit.pth")
    (tmp_path / "pa.toml").write_text(
        '[datasets.cub]\nroot = "cub"\n[encoders.deit]\ncheckpoint = "deit.pth"\nnum_heads = 1\n'
    )
    return tmp_path
