"""The upsampling of the released code, by torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsample(maps: Tensor, size: int, first: int = 1) -> Tensor:
    """Upsample maps (B, C, g, g) to (B, C, size, size): bilinear by `first`, then to the size."""
    if first > 1:
        maps = F.interpolate(maps, scale_factor=first, mode="bilinear", align_corners=False)
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
