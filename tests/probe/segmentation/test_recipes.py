"""Numbers that a recipe of segmentation does not take."""

from __future__ import annotations

import pytest

from pa.errors import UsageError
from pa.probe.segmentation.recipes import SegmentationRecipe


def test_batch_beyond_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="16,384 windows or less"):
        SegmentationRecipe(batch=10**9)
