"""Strips of pictures and text from which contact sheets are stacked. All lengths are in pixels."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from pa.data import images as im
from pa.data.files import replacing
from pa.errors import ImageError
from pa.figures.style import check_suffix

SUFFIXES = (".png", ".jpg", ".pdf")
CELL, GAP, MARGIN, CAPTION = 132, 8, 36, 22  # patch, gaps, border of the sheet, line of text
INK, SOFT, PAPER, EDGE = "#1a1a1a", "#6b6b6b", "#ffffff", "#d8d8d8"
# Okabe and Ito (2008): distinguishable with colour-blindness; without black.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
LONGEST = 400  # characters that are measured: no line of a sheet holds more


def save(strips: Sequence[Image.Image], width: int, path: Path) -> Path:
    """Stack strips to a sheet, and write it to a PNG, JPEG or PDF file."""
    check_suffix(path, SUFFIXES)
    height = sum(strip.height for strip in strips) + 2 * MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    kind = {".jpg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
    with replacing(path) as partial:
        sheet.save(partial, format=kind, **({"quality": 92} if kind == "JPEG" else {}))
    return path


def load(root: Path, path: str) -> Image.Image | None:
    """Read an image; None if it cannot be read."""
    try:
        return im.decode((root / path).read_bytes(), path)
    except (ImageError, OSError):
        return None


def spread(rows: pl.DataFrame, n: int) -> list[dict[str, Any]]:
    """Return at most n rows at equal steps, so that they represent the whole split."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    examples: list[dict[str, Any]] = rows[chosen.tolist()].to_dicts()
    return examples


def missing(size: tuple[int, int]) -> Image.Image:
    """Return a picture that replaces an unreadable image."""
    picture = Image.new("RGB", size, EDGE)
    write(ImageDraw.Draw(picture), (10, size[1] // 2 - 8), "unreadable", 16, SOFT)
    return picture


def text_strip(text: str, points: int, colour: str, width: int, height: int) -> Image.Image:
    strip = Image.new("RGB", (width, height), PAPER)
    text = fit(text, points, width - 2 * MARGIN)
    write(ImageDraw.Draw(strip), (MARGIN, 0), text, points, colour)
    return strip


def write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, points: int, colour: str
) -> None:
    pen.text(at, text, fill=colour, font=ImageFont.load_default(points))


def fit(text: str, points: int, width: int) -> str:
    """Shorten a text with an ellipsis to a width."""
    font = ImageFont.load_default(points)
    text = text[:LONGEST]
    if font.getlength(text) <= width:
        return text
    fits = bisect.bisect_left(
        range(len(text)), True, key=lambda n: font.getlength(text[: n + 1] + "…") > width
    )
    return text[:fits] + "…"
