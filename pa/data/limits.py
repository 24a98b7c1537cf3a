"""Limits of this process that settings change; kept apart from the modules that load Pillow."""

from __future__ import annotations

MAX_PIXELS = 100_000_000  # 300 MB as 8-bit RGB; the largest of ImageNet's images has 30 million

_max_pixels = MAX_PIXELS


def max_pixels() -> int:
    """The number of pixels above which an image is not decoded."""
    return _max_pixels


def set_max_pixels(limit: int) -> None:
    global _max_pixels  # one limit for every place that opens an image
    _max_pixels = limit
