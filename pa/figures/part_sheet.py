"""The contact sheet of view `parts`.

One line per part with examples, spread evenly over the split, and the keypoint marked in each;
below, whole images with all their boxes. All lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageDraw

from pa.data import images as im
from pa.data.schema import BOX, Images
from pa.data.views.part_rows import Selection
from pa.data.views.parts import CANVAS
from pa.errors import UnknownNameError
from pa.figures import sheet
from pa.figures.sheet import CAPTION, CELL, COLOURS, EDGE, GAP, INK, MARGIN, PAPER, SOFT, write
from pa.figures.style import check_suffix

MAX_PARTS = 16  # lines of a sheet that stays readable on a screen
N_CONTEXT = 6  # whole images with boxes
NAMES = 190  # width of the column of part names
CONTEXT_HEIGHT = 240  # of whole images: boxes of small parts stay visible
RING = 6  # radius of the mark of a keypoint


@dataclass(frozen=True)
class SheetOptions:
    """Contents of a sheet.

    Parameters
    ----------
    parts : tuple of str
        Parts to draw; empty selects all.
    examples : int
        Number of patches of each part.
    resize : int
        Side in pixels to which a patch is resized before its central 224 pixels are shown, as an
        encoder sees it.
    """

    parts: tuple[str, ...] = ()
    examples: int = 12
    resize: int = CANVAS


def draw(
    path: Path, images: Images, selection: Selection, title: str, options: SheetOptions
) -> Path:
    """Draw the contact sheet of a selection of parts to a PNG, JPEG or PDF file.

    Raises `UsageError` for another suffix, `UnknownNameError` for a part without rows.
    """
    check_suffix(path, sheet.SUFFIXES)
    known = [name for name, n in selection.counts.kept.items() if n]
    for part in options.parts:
        if part not in known:
            raise UnknownNameError("part with rows", part, known)
    parts = (options.parts or tuple(known))[:MAX_PARTS]
    drawing = _Sheet(images.root, selection.rows, parts, options.examples, options.resize)
    width = 2 * MARGIN + NAMES + options.examples * (CELL + GAP) - GAP
    counts = selection.counts
    lines = [
        f"{counts.rows:,} patches from {counts.images_kept:,} of {counts.images:,} images",
        "skipped: " + (", ".join(counts.skip_reasons()) or "none"),
    ]
    if options.resize != CANVAS:
        lines.append(
            f"patches are resized to {options.resize} pixels and the central {CANVAS} are shown, "
            f"as the encoder sees them"
        )
    if hidden := len(options.parts or known) - len(parts):
        lines.append(f"{hidden} more parts are not drawn")
    strips = [
        sheet.text_strip(title, 30, INK, width, 42),
        *(sheet.text_strip(line, 18, SOFT, width, 26) for line in lines),
        Image.new("RGB", (width, 18), PAPER),
        *(drawing.line(part, width) for part in parts),
        drawing.context(width),
    ]
    return sheet.save(strips, width, path)


@dataclass(frozen=True, eq=False)
class _Sheet:
    """The strips of a sheet; each part has a colour."""

    root: Path
    rows: pl.DataFrame
    parts: Sequence[str]
    examples: int
    resize: int  # side of a patch before its centre is shown

    @property
    def colours(self) -> dict[str, str]:
        return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(self.parts)}

    def line(self, part: str, width: int) -> Image.Image:
        """Draw the name of a part with its count, and examples of it."""
        strip = Image.new("RGB", (width, CELL + CAPTION + GAP), PAPER)
        pen = ImageDraw.Draw(strip)
        middle = CELL // 2
        pen.rectangle((MARGIN, middle - 34, MARGIN + 5, middle + 34), fill=self.colours[part])
        write(pen, (MARGIN + 18, middle - 34), sheet.fit(part, 22, NAMES - 30), 22, INK)
        rows = self.rows.filter(pl.col("label") == part)
        write(pen, (MARGIN + 18, middle - 4), f"{len(rows):,} patches", 16, SOFT)
        side = float(np.median((rows["x1"] - rows["x0"]).to_numpy()))
        write(pen, (MARGIN + 18, middle + 18), f"median side {side:.0f} px", 16, SOFT)
        for i, row in enumerate(sheet.spread(rows, self.examples)):
            left = MARGIN + NAMES + i * (CELL + GAP)
            strip.paste(self._patch(row, self.colours[part]), (left, 0))
            pen.rectangle((left, 0, left + CELL - 1, CELL - 1), outline=EDGE)
            write(pen, (left, CELL + 3), f"{row['x1'] - row['x0']:.0f} px", 13, SOFT)
        return strip

    def _patch(self, row: dict[str, Any], colour: str) -> Image.Image:
        image = sheet.load(self.root, row["path"])
        if image is None:
            return sheet.missing((CELL, CELL))
        x0, y0, x1, y1 = (row[name] for name in BOX)
        side = round(CELL * self.resize / CANVAS)
        patch = im.centre_crop(im.crop_resize(image, (x0, y0, x1, y1), side, "bicubic"), CELL)
        if row["x"] is not None:
            edge = (side - CELL) / 2  # removed on each side by the crop
            at = (
                (row["x"] - x0) / (x1 - x0) * side - edge,
                (row["y"] - y0) / (y1 - y0) * side - edge,
            )
            _ring(ImageDraw.Draw(patch), at, colour)
        return patch

    def context(self, width: int) -> Image.Image:
        """Draw whole images with all their boxes, until the line is full."""
        strip = Image.new("RGB", (width, 44 + CONTEXT_HEIGHT), PAPER)
        pen = ImageDraw.Draw(strip)
        write(pen, (MARGIN, 8), "in their images", 18, SOFT)
        left = MARGIN
        rows = self.rows.filter(pl.col("label").is_in(self.parts))  # parts that are drawn
        per_image = rows.group_by("path", maintain_order=True).len().sort("path")
        # Several parts in one image show how their boxes are arranged.
        several = per_image.filter(pl.col("len") > 1)
        candidates = per_image if several.is_empty() else several
        # More than fit, so that a narrow image can fill the space that a wide one leaves.
        tried = [*sheet.spread(candidates, N_CONTEXT), *sheet.spread(candidates, 3 * N_CONTEXT)]
        for path in dict.fromkeys(row["path"] for row in tried):
            boxes = rows.filter(pl.col("path") == path)
            picture = self._whole(path, boxes, width - 2 * MARGIN)
            if left + picture.width > width - MARGIN:
                continue
            strip.paste(picture, (left, 40))
            left += picture.width + GAP
        return strip

    def _whole(self, path: str, rows: pl.DataFrame, room: int) -> Image.Image:
        """Draw an image with its boxes, black beyond its border as the patches are."""
        image = sheet.load(self.root, path)
        if image is None:
            return sheet.missing((CONTEXT_HEIGHT, CONTEXT_HEIGHT))
        boxes = rows.select(BOX).to_numpy()  # (n, 4)
        low = np.minimum(boxes[:, :2].min(axis=0), 0)  # (2,)
        high = np.maximum(boxes[:, 2:].max(axis=0), image.size)  # (2,)
        # Reduce it before it is pasted on black: boxes may extend much farther than the image.
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


def _scaled(size: Sequence[float] | npt.NDArray[np.float64], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _ring(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], colour: str, radius: int = RING
) -> None:
    """Draw a ring with a white border, visible on any background without hiding its centre."""
    x, y = at
    for r, fill, width in ((radius + 1.5, "white", 5), (radius, colour, 2)):
        pen.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=width)
