"""Devices that this process can use, and matrix products in true float32."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from pa.errors import UsageError


def visible_gpus() -> list[str]:
    """Return a value of CUDA_VISIBLE_DEVICES for each GPU; empty without a GPU.

    The values are those that the variable already contains (numbers or UUIDs), else all numbers.
    """
    count = torch.cuda.device_count()
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return allowed[:count] if allowed else [str(number) for number in range(count)]


def torch_device(name: str) -> str:
    """Return a torch device; "auto" selects CUDA if torch finds a device.

    Raise `UsageError` for an unknown name, and for CUDA if torch finds no device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?|mps", name) is None:
        raise UsageError(f"unknown device {name!r}. Known: auto, cpu, cuda, cuda:0 …, mps.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"device {name}: torch {torch.__version__} finds no CUDA device. Use --device cpu."
        )
    return name


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 in matrix products and convolutions: a GPU may otherwise round to 10 bits."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
