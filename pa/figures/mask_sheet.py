"""Contact sheet of masks over their images, with class names, for checking a dataset by eye.

One block per image: the image, the mask over it, and a legend of its classes. Blocks are arranged
in columns once the sheet would become tall. All lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pa.data import images as im
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED, LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.files import replacing
from pa.data.schema import Images
from pa.errors import ImageError
from pa.figures.colours import Colour, overlay, spread_palette
from pa.figures.sheet import INK, MARGIN, PAPER, SOFT, SUFFIXES, fit, spread, write
from pa.figures.style import check_suffix

PICTURE = (540, 420)  # largest width and height of one image
LEGEND, GAP = 340, 16
LINE, SWATCH, HEADING = 22, 14, 84
BLOCK = 2 * (PICTURE[0] + GAP) + LEGEND  # width of an image, its overlay and the legend
MAX_ASPECT = 1.75  # height of a sheet over its width; taller sheets get another column


@dataclass(frozen=True)
class Example:
    """One image and its class map, both at the size drawn, and the share of pixels per class."""

    path: str
    picture: Image.Image
    classes: Map
    shares: dict[int, float]
    size: tuple[int, int]  # original width and height


def draw(path: Path, images: Images, label_set: LabelSet, examples: int = 6) -> list[str]:
    """Draw masks over images spread evenly over a split, to a PNG, JPEG or PDF file.

    Return the paths of the images drawn. Raise `UsageError` for another suffix, `AnnotationError`
    or `ImageError` for a faulty file.
    """
    check_suffix(path, SUFFIXES)
    rows = spread(images.table, examples)
    chosen = [read_example(images, row, len(label_set)) for row in rows]
    sheet = _sheet(chosen, label_set, f"{images.dataset} · {images.split} · {label_set.title}")
    kind = {".jpg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
    with replacing(path) as partial:
        sheet.save(partial, format=kind)
    return [example.path for example in chosen]


def read_example(images: Images, row: dict[str, Any], n_classes: int) -> Example:
    """Read one image and its mask, and resize both to the size drawn."""
    file = images.root / row["path"]
    try:
        image = im.decode(file.read_bytes(), file)
    except OSError as error:
        raise ImageError(file, f"cannot read the file: {error.strerror}") from None
    classes = masks.read(images.root / row["mask"], n_classes, image.size)
    counts = np.bincount(classes.ravel(), minlength=IGNORED + 1)
    shares = {c: counts[c] / classes.size for c in np.flatnonzero(counts[:IGNORED]).tolist()}
    scale = min(PICTURE[0] / image.width, PICTURE[1] / image.height)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    ys, xs = masks.nearest(height, image.height), masks.nearest(width, image.width)
    return Example(row["path"], small, classes[np.ix_(ys, xs)], shares, image.size)


def _sheet(examples: list[Example], label_set: LabelSet, title: str) -> Image.Image:
    totals: dict[int, float] = {}
    for example in examples:
        for number, share in example.shares.items():
            totals[number] = totals.get(number, 0.0) + share
    ranked = sorted(totals, key=lambda number: -totals[number])  # large classes: clearest colours
    colours = dict(zip(ranked, spread_palette(len(ranked)), strict=True)) if ranked else {}
    blocks = [_block(example, label_set, colours) for example in examples]
    n_columns, heights = _columns([block.height for block in blocks])
    width = 2 * (MARGIN - GAP) + n_columns * (BLOCK + 2 * GAP)
    height = 2 * MARGIN + HEADING + sum(heights)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    text_width = width - 2 * MARGIN
    write(pen, (MARGIN, MARGIN), fit(title, 26, text_width), 26, INK)
    summary = f"{len(label_set)} classes, {len(colours)} of them shown; ignored pixels are faded"
    if "not certain" in label_set.certainty:
        summary += ". The authors' 209 classes cannot be recovered: this is one reading"
    write(pen, (MARGIN, MARGIN + 38), fit(summary, 16, text_width), 16, SOFT)
    for number, block in enumerate(blocks):
        row, column = divmod(number, n_columns)
        left, top = MARGIN + column * (BLOCK + 2 * GAP), MARGIN + HEADING + sum(heights[:row])
        sheet.paste(block, (left, top))
    return sheet


def _columns(heights: list[int]) -> tuple[int, list[int]]:
    """Return the fewest columns that keep a sheet from being tall, and the heights of its rows."""
    n = 0
    while True:
        n += 1
        rows = [max(heights[i : i + n]) + GAP for i in range(0, len(heights), n)]
        if len(rows) == 1 or sum(rows) <= MAX_ASPECT * n * BLOCK:
            return n, rows


def _block(example: Example, label_set: LabelSet, colours: dict[int, Colour]) -> Image.Image:
    """Draw image, overlay and legend of one example."""
    entries = list(_entries(example, label_set))
    height = max(example.picture.height, LINE * (len(entries) + 2))
    strip = Image.new("RGB", (BLOCK, height), PAPER)
    strip.paste(example.picture, (0, 0))
    strip.paste(overlay(example.picture, example.classes, colours), (PICTURE[0] + GAP, 0))
    pen, left = ImageDraw.Draw(strip), 2 * (PICTURE[0] + GAP)
    name = f"{example.path.rpartition('/')[2]}   {example.size[0]}x{example.size[1]}"
    write(pen, (left, 0), fit(name, 15, LEGEND), 15, INK)
    labelled = f"{sum(example.shares.values()):.1%} of the pixels labelled"
    labelled = labelled if example.shares else "no labelled pixel"
    write(pen, (left, LINE), fit(labelled, 14, LEGEND), 14, SOFT)
    for line, (number, text, share) in enumerate(entries, 2):
        top = line * LINE
        if number is not None:
            box = (left, top + 3, left + SWATCH, top + 3 + SWATCH)
            pen.rectangle(box, fill=colours[number], outline=INK)
        write(pen, (left + SWATCH + 8, top), fit(text, 15, LEGEND - SWATCH - 70), 15, INK)
        pen.text((left + LEGEND, top), share, SOFT, ImageFont.load_default(14), anchor="ra")
    return strip


def _entries(example: Example, label_set: LabelSet) -> Iterator[tuple[int | None, str, str]]:
    """Yield number, name and share of each class of an example, largest first."""
    max_lines = max(PICTURE[1] // LINE - 3, 1)
    ranked = sorted(example.shares, key=lambda number: -example.shares[number])
    for number in ranked[:max_lines]:
        share = example.shares[number]
        yield number, label_set.names[number], f"{share:.1%}" if share >= 0.001 else "<0.1%"
    if len(ranked) > max_lines:
        yield None, f"and {len(ranked) - max_lines} smaller classes", ""
