"""The contact sheet of views `image` and `grid`.

For view `grid` one line per image, evenly spread over the split: the canvas with the borders of its
windows, then windows as an encoder sees them. For view `image` one cell per image. All lengths are
in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pa.data.datasets.imagenet import readable_label
from pa.data.images import Transform
from pa.data.schema import Images
from pa.data.views.base import FixedView
from pa.figures import sheet
from pa.figures.sheet import CAPTION, CELL, COLOURS, GAP, INK, MARGIN, PAPER, SOFT, fit, write
from pa.figures.style import check_suffix

CANVAS_SIDE = 2 * CELL + GAP + CAPTION  # as high as two rows of regions
PER_LINE = 8  # regions next to a canvas, in each of two rows


def draw(path: Path, images: Images, view: FixedView, title: str, examples: int) -> Path:
    """Draw the regions of images spread over a split to a PNG, JPEG or PDF file.

    The transform is that of a ViT at 224. Raises `UsageError` for another suffix.
    """
    transform = Transform()
    check_suffix(path, sheet.SUFFIXES)
    width = 2 * MARGIN + CANVAS_SIDE + 3 * GAP + PER_LINE * (CELL + GAP)
    n = len(view.boxes())
    counts = (
        f"{len(images.table):,} images, {n} region{'s' if n != 1 else ''} of each; "
        f"cut for an encoder of {transform.size} pixels"
    )
    rows = sheet.spread(images.table, examples)
    if n == 1:
        per_line = (width - 2 * MARGIN + GAP) // (CELL + GAP)
        parts = [rows[start : start + per_line] for start in range(0, len(rows), per_line)]
        lines = [_cells(images, part, view, transform, width) for part in parts]
    else:
        lines = [_line(images, row, view, transform, width) for row in rows]
    strips = [
        sheet.text_strip(title, 30, INK, width, 42),
        sheet.text_strip(counts, 18, SOFT, width, 40),
        *lines,
    ]
    return sheet.save(strips, width, path)


def _cells(
    images: Images,
    rows: list[dict[str, Any]],
    view: FixedView,
    transform: Transform,
    width: int,
) -> Image.Image:
    """Draw the only region of each image, with its label."""
    strip = Image.new("RGB", (width, CELL + 2 * CAPTION), PAPER)
    pen = ImageDraw.Draw(strip)
    for i, row in enumerate(rows):
        left = MARGIN + i * (CELL + GAP)
        image = sheet.load(images.root, row["path"])
        if image is None:
            strip.paste(sheet.missing((CELL, CELL)), (left, 0))
        else:
            strip.paste(view.canvas(image, transform).resize((CELL, CELL)), (left, 0))
        name = readable_label(row["label"] or "") or row["path"].rpartition("/")[2]
        write(pen, (left, CELL + 3), fit(name, 13, CELL), 13, SOFT)
    return strip


def _line(
    images: Images, row: dict[str, Any], view: FixedView, transform: Transform, width: int
) -> Image.Image:
    """Draw the canvas of an image with the borders of its windows, and windows spread over it."""
    strip = Image.new("RGB", (width, CANVAS_SIDE + 3 * CAPTION), PAPER)
    pen = ImageDraw.Draw(strip)
    label = f"{readable_label(row['label'])} · " if row["label"] else ""
    name = fit(f"{label}{row['path']}", 14, width - 2 * MARGIN)
    write(pen, (MARGIN, 2), name, 14, INK)
    image = sheet.load(images.root, row["path"])
    if image is None:
        strip.paste(sheet.missing((CANVAS_SIDE, CANVAS_SIDE)), (MARGIN, CAPTION))
        return strip
    canvas = view.canvas(image, transform)
    boxes = [tuple(map(float, box)) for box in view.boxes()]
    pixels = view.cut(canvas, boxes, transform)  # type: ignore[arg-type]
    small = canvas.resize((CANVAS_SIDE, CANVAS_SIDE), Image.Resampling.LANCZOS)
    scale = CANVAS_SIDE / canvas.width
    on_canvas = ImageDraw.Draw(small)
    edges = {edge * scale for box in boxes for edge in box}  # square canvas: x and y alike
    for edge in sorted(edges - {0.0, float(CANVAS_SIDE)}):
        on_canvas.line((edge, 0, edge, CANVAS_SIDE), fill=COLOURS[0])
        on_canvas.line((0, edge, CANVAS_SIDE, edge), fill=COLOURS[0])
    strip.paste(small, (MARGIN, CAPTION))
    chosen = np.unique(np.linspace(0, len(boxes) - 1, 2 * PER_LINE).round().astype(int)).tolist()
    for i, window in enumerate(chosen):
        line, column = divmod(i, PER_LINE)
        left = MARGIN + CANVAS_SIDE + 3 * GAP + column * (CELL + GAP)
        top = CAPTION + line * (CELL + GAP + CAPTION)
        region = Image.fromarray(pixels[window]).resize((CELL, CELL), Image.Resampling.LANCZOS)
        strip.paste(region, (left, top))
        corner = ",".join(f"{length:g}" for length in boxes[window])
        write(pen, (left, top + CELL + 3), corner, 13, SOFT)
    return strip
