"""The contact sheet of view `parts`: what is cut out, at a glance.

One line per part with examples, spread evenly over the split, and the keypoint marked in each;
below, whole images with all their boxes. All lengths are in pixels.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from pa.data import images as im
from pa.data.files import replacing
from pa.data.schema import BOX, Images
from pa.data.views.part_rows import Selection
from pa.data.views.parts import CANVAS
from pa.errors import ImageError, UnknownNameError, UsageError

SUFFIXES = (".png", ".jpg", ".pdf")
MAX_PARTS = 16
N_CONTEXT = 6

CELL, GAP, MARGIN, CAPTION = 132, 8, 36, 22
NAMES = 190  # width of the column of part names
CONTEXT_HEIGHT = 240
RING = 6

INK, SOFT, PAPER, EDGE = "#1a1a1a", "#6b6b6b", "#ffffff", "#d8d8d8"
# Okabe and Ito's colours, told apart by colour-blind readers too; black left out.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")


@dataclass(frozen=True)
class SheetOptions:
    """`parts`: which to draw, all for none named; `examples`: how many patches of each.

    `resize`: patches are resized to so many 224ths of what is shown, which is their middle: what
    the encoder sees of a view with that field.
    """

    parts: tuple[str, ...] = ()
    examples: int = 12
    resize: int = CANVAS


def draw(
    path: Path, images: Images, selection: Selection, title: str, options: SheetOptions
) -> Path:
    """Draw the contact sheet of a selection of parts to a PNG, JPEG or PDF file.

    Raises `UsageError` for another suffix, `UnknownNameError` for a part that has no row.
    """
    check_suffix(path)
    return save(_Sheet(images, selection, options).draw(title), path)


def save(sheet: Image.Image, path: Path) -> Path:
    """Write a sheet to a PNG, JPEG or PDF file. Raises `UsageError` for another suffix."""
    check_suffix(path)
    kind = {".jpg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
    with replacing(path) as partial:
        sheet.save(partial, format=kind, **({"quality": 92} if kind == "JPEG" else {}))
    return path


def check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: a sheet is written as {', '.join(SUFFIXES)}; found "
            f"{path.suffix or 'no suffix'}."
        )


class _Sheet:
    def __init__(self, images: Images, selection: Selection, options: SheetOptions) -> None:
        self.root = images.root
        self.rows = selection.rows
        self.counts = selection.counts
        self.examples = options.examples
        self.resize = options.resize
        there = [name for name, n in self.counts.kept.items() if n]
        for part in options.parts:
            if part not in there:
                raise UnknownNameError("part with rows", part, there)
        self.parts = (options.parts or tuple(there))[:MAX_PARTS]
        self.n_left = len(options.parts or there) - len(self.parts)
        self.colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(self.parts)}

    def draw(self, title: str) -> Image.Image:
        width = 2 * MARGIN + NAMES + self.examples * (CELL + GAP) - GAP
        heading = self._heading(title, width)
        height = sum(strip.height for strip in heading) + 2 * MARGIN
        strips = [*heading, *(self._line(part, width) for part in self.parts)]
        strips.append(self._context(width))
        height = sum(strip.height for strip in strips) + 2 * MARGIN
        sheet = Image.new("RGB", (width, height), PAPER)
        top = MARGIN
        for strip in strips:
            sheet.paste(strip, (0, top))
            top += strip.height
        return sheet

    def _heading(self, title: str, width: int) -> list[Image.Image]:
        counts = self.counts
        told = [
            f"{counts.rows:,} patches from {counts.images_kept:,} of {counts.images:,} images",
            "left out: " + (", ".join(counts.left_out()) or "nothing"),
        ]
        if self.resize != CANVAS:
            told.append(
                f"patches are resized to {self.resize} pixels and the central {CANVAS} are shown, "
                f"as the encoder sees them"
            )
        if self.n_left:
            told.append(f"{self.n_left} more parts are not drawn")
        return [
            text_strip(title, 30, INK, width, 42),
            *(text_strip(line, 18, SOFT, width, 26) for line in told),
            Image.new("RGB", (width, 18), PAPER),
        ]

    def _line(self, part: str, width: int) -> Image.Image:
        """The name of a part with its count, and examples of it."""
        strip = Image.new("RGB", (width, CELL + CAPTION + GAP), PAPER)
        pen = ImageDraw.Draw(strip)
        middle = CELL // 2
        pen.rectangle((MARGIN, middle - 34, MARGIN + 5, middle + 34), fill=self.colours[part])
        write(pen, (MARGIN + 18, middle - 34), fit(part, 22, NAMES - 30), 22, INK)
        mine = self.rows.filter(pl.col("label") == part)
        write(pen, (MARGIN + 18, middle - 4), f"{len(mine):,} patches", 16, SOFT)
        side = float(np.median((mine["x1"] - mine["x0"]).to_numpy()))
        write(pen, (MARGIN + 18, middle + 18), f"median side {side:.0f} px", 16, SOFT)
        for place, row in enumerate(spread(mine, self.examples)):
            left = MARGIN + NAMES + place * (CELL + GAP)
            strip.paste(self._patch(row, self.colours[part]), (left, 0))
            pen.rectangle((left, 0, left + CELL - 1, CELL - 1), outline=EDGE)
            write(pen, (left, CELL + 3), f"{row['x1'] - row['x0']:.0f} px", 13, SOFT)
        return strip

    def _patch(self, row: dict[str, Any], colour: str) -> Image.Image:
        image = self._load(row["path"])
        if image is None:
            return missing((CELL, CELL))
        x0, y0, x1, y1 = (row[name] for name in BOX)
        side = round(CELL * self.resize / CANVAS)
        whole = im.crop_resize(image, (x0, y0, x1, y1), side, "bicubic")
        patch = im.centre_crop(whole, CELL)
        if row["x"] is not None:
            edge = (side - CELL) / 2
            at = (
                (row["x"] - x0) / (x1 - x0) * side - edge,
                (row["y"] - y0) / (y1 - y0) * side - edge,
            )
            _ring(ImageDraw.Draw(patch), at, colour)
        return patch

    def _context(self, width: int) -> Image.Image:
        """Whole images with all their boxes, until the line is full."""
        strip = Image.new("RGB", (width, 44 + CONTEXT_HEIGHT), PAPER)
        pen = ImageDraw.Draw(strip)
        write(pen, (MARGIN, 8), "in their images", 18, SOFT)
        left = MARGIN
        wanted = self.rows.filter(pl.col("label").is_in(self.parts))
        per_image = wanted.group_by("path", maintain_order=True).len().sort("path")
        # Several parts in one image show how their boxes lie to each other.
        several = per_image.filter(pl.col("len") > 1)
        telling = per_image if several.is_empty() else several
        # More than fit, so that wide pictures leave no hole where a narrow one has room.
        tried = [*spread(telling, N_CONTEXT), *spread(telling, 3 * N_CONTEXT)]
        for chosen in {row["path"]: row for row in tried}.values():
            boxes = wanted.filter(pl.col("path") == chosen["path"])
            picture = self._whole(chosen["path"], boxes, width - 2 * MARGIN)
            if left + picture.width > width - MARGIN:
                continue
            strip.paste(picture, (left, 40))
            left += picture.width + GAP
        return strip

    def _whole(self, path: str, rows: pl.DataFrame, room: int) -> Image.Image:
        """An image with its boxes, black beyond its border as the patches are."""
        image = self._load(path)
        if image is None:
            return missing((CONTEXT_HEIGHT, CONTEXT_HEIGHT))
        boxes = rows.select(BOX).to_numpy()
        low = np.minimum(boxes[:, :2].min(axis=0), 0)
        high = np.maximum(boxes[:, 2:].max(axis=0), image.size)
        # Made small before it is laid on black: boxes may reach much farther than the image does.
        scale = float(min(CONTEXT_HEIGHT / (high[1] - low[1]), room / (high[0] - low[0])))
        small = image.resize(_scaled(image.size, scale), Image.Resampling.LANCZOS)
        picture = Image.new("RGB", _scaled(high - low, scale))
        picture.paste(small, (round(-low[0] * scale), round(-low[1] * scale)))
        pen = ImageDraw.Draw(picture)
        for row in rows.iter_rows(named=True):
            colour = self.colours[row["label"]]
            box = [float((row[name] - low[i % 2]) * scale) for i, name in enumerate(BOX)]
            pen.rectangle(box, outline=colour, width=3)
            if row["x"] is not None:
                _ring(pen, ((row["x"] - low[0]) * scale, (row["y"] - low[1]) * scale), colour, 4)
        return picture

    def _load(self, path: str) -> Image.Image | None:
        try:
            return im.decode((self.root / path).read_bytes(), path)
        except (ImageError, OSError):
            return None


def _scaled(size: Sequence[float] | npt.NDArray[np.float64], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def spread(rows: pl.DataFrame, n: int) -> Sequence[dict[str, Any]]:
    """At most n rows at equal steps, so that they come from all over the split."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    spread: list[dict[str, Any]] = rows[chosen.tolist()].to_dicts()
    return spread


def _ring(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], colour: str, radius: int = RING
) -> None:
    """A ring with a white border, to be seen on any ground without hiding what it marks."""
    x, y = at
    for r, fill, width in ((radius + 1.5, "white", 5), (radius, colour, 2)):
        pen.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=width)


def missing(size: tuple[int, int]) -> Image.Image:
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


LONGEST = 400  # characters that are measured at all: no line of a sheet holds more


def fit(text: str, points: int, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than the room."""
    font = ImageFont.load_default(points)
    text = text[:LONGEST]
    if font.getlength(text) <= width:
        return text
    fits = bisect.bisect_left(
        range(len(text)), True, key=lambda n: font.getlength(text[: n + 1] + "…") > width
    )
    return text[:fits] + "…"
