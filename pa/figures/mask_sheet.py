"""Contact sheet of masks over their images, with class names, for checking a dataset by eye.

One block per image: the image, the mask over it, and a legend of its classes. Blocks are arranged
in columns once the sheet would become tall. All lengths are in pixels.
"""

from __future__ import annotations

import itertools
from collections import Counter
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
LEGEND, GAP = 340, 16  # width of a legend, and space between pictures
LINE, SWATCH, HEADING = 22, 14, 84  # heights
BLOCK = 2 * (PICTURE[0] + GAP) + LEGEND  # width of an image, its overlay and the legend
MAX_ENTRIES = PICTURE[1] // LINE - 3  # classes in a legend as high as an image
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
    totals: Counter[int] = Counter()
    for example in examples:
        totals.update(example.shares)
    ranked = [number for number, _ in totals.most_common()]  # large classes: clearest colours
    colours = dict(zip(ranked, spread_palette(len(ranked)), strict=True)) if ranked else {}
    blocks = [_block(example, label_set, colours) for example in examples]
    for n_columns in itertools.count(1):  # the fewest that keep the sheet from being tall
        rows = [blocks[i : i + n_columns] for i in range(0, len(blocks), n_columns)]
        heights = [max(block.height for block in row) + GAP for row in rows]
        if len(rows) == 1 or sum(heights) <= MAX_ASPECT * n_columns * BLOCK:
            break
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


def _block(example: Example, label_set: LabelSet, colours: dict[int, Colour]) -> Image.Image:
    """Draw image, overlay and legend of one example."""
    ranked = sorted(example.shares.items(), key=lambda item: -item[1])
    n_more = len(ranked) - MAX_ENTRIES
    height = max(example.picture.height, LINE * (min(len(ranked), MAX_ENTRIES + 1) + 2))
    strip = Image.new("RGB", (BLOCK, height), PAPER)
    strip.paste(example.picture, (0, 0))
    strip.paste(overlay(example.picture, example.classes, colours), (PICTURE[0] + GAP, 0))
    pen, left = ImageDraw.Draw(strip), 2 * (PICTURE[0] + GAP)
    name = f"{example.path.rpartition('/')[2]}   {example.size[0]}x{example.size[1]}"
    write(pen, (left, 0), fit(name, 15, LEGEND), 15, INK)
    labelled = f"{sum(example.shares.values()):.1%} of the pixels labelled"
    labelled = labelled if example.shares else "no labelled pixel"
    write(pen, (left, LINE), fit(labelled, 14, LEGEND), 14, SOFT)
    indent, room = left + SWATCH + 8, LEGEND - SWATCH - 70  # between swatch and share
    for line, (number, share) in enumerate(ranked[:MAX_ENTRIES], 2):
        top = line * LINE
        box = (left, top + 3, left + SWATCH, top + 3 + SWATCH)
        pen.rectangle(box, fill=colours[number], outline=INK)
        write(pen, (indent, top), fit(label_set.names[number], 15, room), 15, INK)
        text = f"{share:.1%}" if share >= 0.001 else "<0.1%"
        pen.text((left + LEGEND, top), text, SOFT, ImageFont.load_default(14), anchor="ra")
    if n_more > 0:
        top = LINE * (MAX_ENTRIES + 2)
        write(pen, (indent, top), fit(f"and {n_more} smaller classes", 15, room), 15, INK)
    return strip
