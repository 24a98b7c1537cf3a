"""The GPUs this process may use."""

from __future__ import annotations

import os

import torch


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, one per GPU; empty where there is none.

    Those that the variable already allows, be they numbers or UUIDs, else all by number.
    """
    count = torch.cuda.device_count()
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return allowed[:count] if allowed else [str(number) for number in range(count)]
