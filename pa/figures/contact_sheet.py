"""Contact sheets of views, for checking by eye what an encoder gets as its input.

View `parts`: a line of examples for each part, spread evenly over the split, with the keypoint
marked; below, whole images with all their boxes. View `grid`: a line for each image, its windows on
its canvas and next to it. View `image`: a square for each image. All lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from pa.data import images as im
from pa.data.datasets.imagenet import readable_label
from pa.data.images import Transform
from pa.data.schema import BOX, Images
from pa.data.views.base import FixedView
from pa.data.views.part_rows import Selection
from pa.data.views.parts import CANVAS
from pa.errors import ImageError, UnknownNameError
from pa.figures.colours import OKABE_ITO, Colour, as_hex
from pa.figures.paper import MARGIN, Paper, to_pixels
from pa.figures.style import GREY, PRINT_DPI, SHEET_SUFFIXES, Target, check_suffix

MAX_PARTS = 16  # lines of a sheet that stays readable on a screen
CELL, IMAGE, GAP, NAMES = 0.42, 0.77, 0.03, 0.95  # region, image, gap, column of names of parts
_CAPTION, _SMALL = 0.11, 5  # height and points of the text below a region
_CONTEXT_HEIGHT = 0.9  # of whole images: boxes of small parts stay visible
_N_CONTEXT = 6  # whole images with boxes
_PER_LINE = 11  # windows next to a canvas, in each of two rows


def spread(rows: pl.DataFrame, n: int) -> list[dict[str, Any]]:
    """Return at most n rows at equal steps, so that they represent the whole split."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    examples: list[dict[str, Any]] = rows[chosen.tolist()].to_dicts()
    return examples


class _Sheet(Paper):
    """A page with a title and the end of what is drawn below it."""

    def __init__(self, path: Path, root: Path, title: str, notes: Sequence[str]) -> None:
        super().__init__(Target([path]), SHEET_SUFFIXES)
        self.root = root
        self.text(MARGIN, MARGIN + 0.14, title, 9, room=self.room, weight="bold")
        for line, note in enumerate(notes, 1):
            self.text(MARGIN, MARGIN + 0.14 + 0.13 * line, note, 7, room=self.room, color=GREY)
        self.top = MARGIN + 0.24 + 0.13 * len(notes)

    def load(self, path: str, left: float, top: float, side: float) -> Image.Image | None:
        """Read an image. If it cannot be read, draw a grey square instead and return None."""
        try:
            return im.decode((self.root / path).read_bytes(), path)
        except (ImageError, OSError):
            self.paste(Image.new("RGB", (to_pixels(side),) * 2, "#d8d8d8"), left, top)
            self.text(left + 0.02, top + side / 2, "unreadable", _SMALL, color=GREY)
            return None

    def finish(self) -> Path:
        self.write(self.top + MARGIN)
        return self.target.paths[0]


# -- view parts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SheetOptions:
    """Contents of a sheet of parts.

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


def draw_parts(
    path: Path, images: Images, selection: Selection, title: str, options: SheetOptions
) -> Path:
    """Draw the contact sheet of a selection of parts to a PNG, JPEG or PDF file.

    Raises `UsageError` for another suffix, `UnknownNameError` for a part without rows.
    """
    check_suffix(path, SHEET_SUFFIXES)
    counts = selection.counts
    known = [name for name, n in counts.kept.items() if n]
    for part in options.parts:
        if part not in known:
            raise UnknownNameError("part with rows", part, known)
    parts = (options.parts or tuple(known))[:MAX_PARTS]
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
    sheet = _Sheet(path, images.root, title, lines)
    colours = {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(parts)}
    for part in parts:
        _draw_part(sheet, selection.rows, part, colours[part], options)
    _draw_context(sheet, selection.rows.filter(pl.col("label").is_in(parts)), colours)
    return sheet.finish()


def _draw_part(
    sheet: _Sheet, rows: pl.DataFrame, part: str, colour: Colour, options: SheetOptions
) -> None:
    """Draw the name of a part with its count, and examples of it."""
    rows = rows.filter(pl.col("label") == part)
    side = float(np.median((rows["x1"] - rows["x0"]).to_numpy()))
    sheet.fill(MARGIN, sheet.top, 0.03, CELL, as_hex(colour))
    sheet.text(MARGIN + 0.08, sheet.top + 0.12, part, 7.5, room=NAMES - 0.12)
    sheet.text(MARGIN + 0.08, sheet.top + 0.25, f"{len(rows):,} patches", 6, color=GREY)
    sheet.text(MARGIN + 0.08, sheet.top + 0.37, f"median side {side:.0f} px", 6, color=GREY)
    n = options.examples
    # Few examples are not enlarged, many are made smaller, to fit the page.
    cell = min(CELL, (sheet.room - NAMES - (n - 1) * GAP) / n)
    for i, row in enumerate(spread(rows, n)):
        left = MARGIN + NAMES + i * (cell + GAP)
        if (image := sheet.load(row["path"], left, sheet.top, cell)) is not None:
            patch = _patch(image, row, to_pixels(cell), options.resize, colour)
            sheet.paste(patch, left, sheet.top)
        size = f"{row['x1'] - row['x0']:.0f} px"
        sheet.text(left, sheet.top + cell + 0.08, size, _SMALL, room=cell, color=GREY)
    sheet.top += CELL + _CAPTION + GAP


def _patch(
    image: Image.Image, row: dict[str, Any], cell: int, resize: int, colour: Colour
) -> Image.Image:
    """Return a part as an encoder sees it, `cell` pixels wide, with a ring on its keypoint."""
    x0, y0, x1, y1 = (row[name] for name in BOX)
    side = round(cell * resize / CANVAS)
    patch = im.centre_crop(im.crop_resize(image, (x0, y0, x1, y1), side, "bicubic"), cell)
    if row["x"] is not None:
        # From pixels of the image to pixels of the patch, which lost `edge` on each side.
        edge = (side - cell) / 2
        x, y = (row["x"] - x0) / (x1 - x0) * side, (row["y"] - y0) / (y1 - y0) * side
        _draw_ring(ImageDraw.Draw(patch), (x - edge, y - edge), colour, 6)
    return patch


def _draw_context(sheet: _Sheet, rows: pl.DataFrame, colours: dict[str, Colour]) -> None:
    """Draw whole images with all their boxes, until the line is full."""
    sheet.text(MARGIN, sheet.top + 0.1, "in their images", 7, color=GREY)
    sheet.top += 0.15
    left = MARGIN
    per_image = rows.group_by("path", maintain_order=True).len().sort("path")
    # Several parts in one image show how their boxes are arranged.
    several = per_image.filter(pl.col("len") > 1)
    candidates = per_image if several.is_empty() else several
    # More than fit, so that a narrow image can fill the space that a wide one leaves.
    tried = [*spread(candidates, _N_CONTEXT), *spread(candidates, 3 * _N_CONTEXT)]
    for path in dict.fromkeys(row["path"] for row in tried):
        room = MARGIN + sheet.room - left
        if room < _CONTEXT_HEIGHT / 2:
            break
        image = sheet.load(path, left, sheet.top, _CONTEXT_HEIGHT / 2)
        if image is None:
            left += _CONTEXT_HEIGHT / 2 + GAP
            continue
        picture = _with_boxes(image, rows.filter(pl.col("path") == path), sheet.room, colours)
        if picture.width / PRINT_DPI <= room:
            sheet.paste(picture, left, sheet.top)
            left += picture.width / PRINT_DPI + GAP
    sheet.top += _CONTEXT_HEIGHT


def _with_boxes(
    image: Image.Image, rows: pl.DataFrame, room: float, colours: dict[str, Colour]
) -> Image.Image:
    """Draw an image with its boxes, black beyond its border as the patches are."""
    boxes = rows.select(BOX).to_numpy()  # (n, 4)
    low = np.minimum(boxes[:, :2].min(axis=0), 0)  # (2,)
    high = np.maximum(boxes[:, 2:].max(axis=0), image.size)  # (2,)
    # Reduce it before it is pasted on black: boxes may extend much farther than the image.
    limits = np.array([to_pixels(room), to_pixels(_CONTEXT_HEIGHT)])
    scale = float((limits / (high - low)).min())

    def scaled(size: Sequence[float]) -> tuple[int, int]:
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    picture = Image.new("RGB", scaled((high - low).tolist()))
    small = image.resize(scaled(image.size), Image.Resampling.LANCZOS)
    picture.paste(small, (round(-low[0] * scale), round(-low[1] * scale)))
    pen = ImageDraw.Draw(picture)
    for row in rows.iter_rows(named=True):
        colour = colours[row["label"]]
        pen.rectangle(
            [float((row[name] - low[i % 2]) * scale) for i, name in enumerate(BOX)],
            outline=colour,
            width=3,
        )
        if row["x"] is not None:
            at = (row["x"] - low[0]) * scale, (row["y"] - low[1]) * scale
            _draw_ring(pen, at, colour, 4)
    return picture


def _draw_ring(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], colour: Colour, radius: int
) -> None:
    """Draw a ring with a white border, visible on any background without hiding its centre."""
    x, y = at
    for r, fill, width in ((radius + 1.5, (255, 255, 255), 5), (radius, colour, 2)):
        pen.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=width)


# -- views image and grid --------------------------------------------------------------------------


def draw_regions(path: Path, images: Images, view: FixedView, title: str, examples: int) -> Path:
    """Draw the regions of images spread over a split to a PNG, JPEG or PDF file.

    The transform is that of a ViT at 224. Raises `UsageError` for another suffix.
    """
    # Windows and canvas are those of an encoder with an input of 224 pixels.
    transform, n = Transform(), len(view.boxes())
    counts = (
        f"{len(images.table):,} images, {n} region{'s' if n != 1 else ''} of each; cut for an "
        f"encoder of {transform.size} pixels"
    )
    notes = [counts]
    if n > 1:
        notes.append("below each window: its left and upper edge on the canvas, in pixels")
    sheet = _Sheet(path, images.root, title, notes)
    rows = spread(images.table, examples)
    if n > 1:
        for row in rows:
            _draw_windows(sheet, row, view, transform)
        return sheet.finish()
    per_line = int((sheet.room + GAP) / (IMAGE + GAP))
    for i, row in enumerate(rows):
        line, column = divmod(i, per_line)
        left, top = MARGIN + column * (IMAGE + GAP), sheet.top + line * (IMAGE + _CAPTION + GAP)
        if (image := sheet.load(row["path"], left, top, IMAGE)) is not None:
            region = view.canvas(image, transform).resize((to_pixels(IMAGE),) * 2)
            sheet.paste(region, left, top, edged=False)
        name = readable_label(row["label"] or "") or row["path"].rpartition("/")[2]
        sheet.text(left, top + IMAGE + 0.09, name, 6, room=IMAGE, color=GREY)
    sheet.top += -(-len(rows) // per_line) * (IMAGE + _CAPTION + GAP)
    return sheet.finish()


def _draw_windows(
    sheet: _Sheet, row: dict[str, Any], view: FixedView, transform: Transform
) -> None:
    """Draw the canvas of an image with the borders of its windows, and windows spread over it."""
    label = f"{readable_label(row['label'])} · " if row["label"] else ""
    sheet.text(MARGIN, sheet.top + 0.09, f"{label}{row['path']}", 6.5, room=sheet.room)
    sheet.top += 0.13
    side = 2 * (CELL + _CAPTION)  # as high as two rows of windows
    image = sheet.load(row["path"], MARGIN, sheet.top, side)
    if image is None:
        sheet.top += side + GAP
        return
    canvas = view.canvas(image, transform)
    boxes = [tuple(map(float, box)) for box in view.boxes()]
    pixels = view.cut(canvas, boxes, transform)  # type: ignore[arg-type]  # (n, H, W, 3)
    small = canvas.resize((to_pixels(side),) * 2, Image.Resampling.LANCZOS)
    scale = small.width / canvas.width
    pen = ImageDraw.Draw(small)
    edges = {edge * scale for box in boxes for edge in box}  # square canvas: x and y alike
    for edge in sorted(edges - {0.0, float(small.width)}):
        pen.line((edge, 0, edge, small.height), fill=OKABE_ITO[1])
        pen.line((0, edge, small.width, edge), fill=OKABE_ITO[1])
    sheet.paste(small, MARGIN, sheet.top)
    chosen = np.unique(np.linspace(0, len(boxes) - 1, 2 * _PER_LINE).round().astype(int)).tolist()
    for i, window in enumerate(chosen):
        line, column = divmod(i, _PER_LINE)
        left = MARGIN + side + 0.08 + column * (CELL + GAP)
        top = sheet.top + line * (CELL + _CAPTION)
        region = Image.fromarray(pixels[window])
        region = region.resize((to_pixels(CELL),) * 2, Image.Resampling.LANCZOS)
        sheet.paste(region, left, top, edged=False)
        x, y = boxes[window][:2]
        sheet.text(left, top + CELL + 0.08, f"{x:g}, {y:g}", _SMALL, color=GREY)
    sheet.top += side + GAP
