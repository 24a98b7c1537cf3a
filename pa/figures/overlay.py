"""Masks over their images, with the names of their classes: what a person looks at to trust them.

A block per image: the image, the mask over it, and a legend of the classes it shows. Blocks stand
side by side as soon as the sheet would be tall. All lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pa.data import images as im
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED, LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.files import replacing
from pa.data.schema import Images
from pa.errors import ImageError, UsageError

SUFFIXES = (".png", ".jpg", ".pdf")

ROOM = (540, 420)  # of one picture
LEGEND, GAP, MARGIN = 340, 16, 36
LINE, SWATCH, HEADING = 22, 14, 84
BLOCK = 2 * (ROOM[0] + GAP) + LEGEND  # width of an image, its overlay and the legend
TALLEST = 1.75  # height of a sheet over its width, from which it gets another column
OPACITY = 0.62
VEIL = 0.55  # how far ignored pixels fade to white

INK, SOFT, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Example:
    """One image at the size it is drawn, its class map at that size, and its pixels per class."""

    path: str
    picture: Image.Image
    classes: Map
    shares: dict[int, float]
    size: tuple[int, int]


def draw(path: Path, images: Images, label_set: LabelSet, examples: int = 6) -> list[str]:
    """Draw masks over images spread evenly over a split, to a PNG, JPEG or PDF file.

    Returns the paths of the images that were drawn. Raises `UsageError` for another suffix,
    `AnnotationError` or `ImageError` for a file that is not what it should be.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: a sheet is written as {', '.join(SUFFIXES)}; found "
            f"{path.suffix or 'no suffix'}."
        )
    chosen = [example(images, row, len(label_set)) for row in _spread(images, examples)]
    sheet = _sheet(chosen, label_set, f"{images.dataset} · {images.split} · {label_set.title}")
    kind = {".jpg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
    with replacing(path) as partial:
        sheet.save(partial, format=kind)
    return [one.path for one in chosen]


def _spread(images: Images, n: int) -> list[dict[str, Any]]:
    places = np.unique(np.linspace(0, len(images.table) - 1, n).round().astype(int))
    rows: list[dict[str, Any]] = images.table[places.tolist()].to_dicts()
    return rows


def example(images: Images, row: dict[str, Any], n_classes: int) -> Example:
    """Read one image and its mask, and bring both to the size at which they are drawn."""
    file = images.root / row["path"]
    try:
        image = im.decode(file.read_bytes(), file)
    except OSError as error:
        raise ImageError(file, f"cannot read the file: {error.strerror}") from None
    classes = masks.read(images.root / row["mask"], n_classes, image.size)
    counts = np.bincount(classes.ravel(), minlength=IGNORED + 1)
    shares = {c: counts[c] / classes.size for c in np.flatnonzero(counts[:IGNORED]).tolist()}
    scale = min(ROOM[0] / image.width, ROOM[1] / image.height)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    ys, xs = masks.nearest(height, image.height), masks.nearest(width, image.width)
    return Example(row["path"], small, classes[np.ix_(ys, xs)], shares, image.size)


def over(picture: Image.Image, classes: Map, colours: dict[int, Colour]) -> Image.Image:
    """Lay the colours of the classes over a picture; fade what is ignored, draw the borders."""
    pixels = np.asarray(picture, dtype=np.float32)
    table = np.full((IGNORED + 1, 3), 255, np.float32)
    for number, colour in colours.items():
        table[number] = colour
    strength = np.where(classes == IGNORED, VEIL, OPACITY)[..., None]
    grey = pixels.mean(axis=2, keepdims=True)
    base = np.where((classes == IGNORED)[..., None], grey, pixels)
    mixed = base * (1 - strength) + table[classes] * strength
    mixed[borders(classes)] *= 0.35
    return Image.fromarray(mixed.astype(np.uint8))


def borders(classes: Map) -> npt.NDArray[np.bool_]:
    """The pixels whose right or lower neighbour is of another class, (H, W)."""
    edge = np.zeros(classes.shape, np.bool_)
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    edge[:-1] |= classes[:-1] != classes[1:]
    return edge


# -- colours ----------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def palette(n: int) -> tuple[Colour, ...]:
    """n colours, each as far from all before it as can be, the first ones farthest (OKLab)."""
    steps = np.array([0, 51, 102, 153, 204, 255])
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    points = oklab(candidates)
    usable = (points[:, 0] > 0.42) & (points[:, 0] < 0.93) & (np.hypot(*points[:, 1:].T) > 0.06)
    candidates, points = candidates[usable], points[usable]
    chosen = [int(np.argmax(np.hypot(*points[:, 1:].T)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(n, len(points)):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(nearest)))
    colours = [(int(r), int(g), int(b)) for r, g, b in candidates[chosen]]
    return tuple(colours[i % len(colours)] for i in range(n))


def oklab(rgb: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """8-bit sRGB (N, 3) to OKLab (Ottosson 2020), in which distances look alike."""
    level = rgb / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    lms = np.cbrt(linear @ np.array(to_lms).T)
    lab: npt.NDArray[np.float64] = lms @ np.array(to_lab).T
    return lab


def colours_of(examples: list[Example]) -> dict[int, Colour]:
    """A colour for every class that is shown; those that cover most get the clearest ones."""
    totals: dict[int, float] = {}
    for one in examples:
        for number, share in one.shares.items():
            totals[number] = totals.get(number, 0.0) + share
    ranked = sorted(totals, key=lambda number: -totals[number])
    return dict(zip(ranked, palette(len(ranked)), strict=True)) if ranked else {}


# -- the sheet --------------------------------------------------------------------------------


def _sheet(examples: list[Example], label_set: LabelSet, title: str) -> Image.Image:
    colours = colours_of(examples)
    blocks = [_block(one, label_set, colours) for one in examples]
    n, rows = _columns([block.height for block in blocks])
    width = 2 * (MARGIN - GAP) + n * (BLOCK + 2 * GAP)
    height = 2 * MARGIN + HEADING + sum(rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (MARGIN, MARGIN), title, 26, INK, width - 2 * MARGIN)
    told = f"{len(label_set)} classes; {len(colours)} are shown here; ignored pixels are faded"
    if "not certain" in label_set.certainty:
        told += ". The authors' 209 classes cannot be recovered: this is one reading of three"
    _write(pen, (MARGIN, MARGIN + 38), told, 16, SOFT, width - 2 * MARGIN)
    top = MARGIN + HEADING
    for place, block in enumerate(blocks):
        row, column = divmod(place, n)
        at = (MARGIN + column * (BLOCK + 2 * GAP), top + sum(rows[:row]))
        sheet.paste(block, at)
    return sheet


def _columns(heights: list[int]) -> tuple[int, list[int]]:
    """The fewest columns with which a sheet is not tall, and the heights of its rows."""
    n = 0
    while True:
        n += 1
        rows = [max(heights[i : i + n]) + GAP for i in range(0, len(heights), n)]
        if len(rows) == 1 or sum(rows) <= TALLEST * n * BLOCK:
            return n, rows


def _block(one: Example, label_set: LabelSet, colours: dict[int, Colour]) -> Image.Image:
    """Image, overlay and legend of one example."""
    entries = list(_entries(one, label_set))
    height = max(one.picture.height, LINE * (len(entries) + 2))
    strip = Image.new("RGB", (BLOCK, height), PAPER)
    strip.paste(one.picture, (0, 0))
    strip.paste(over(one.picture, one.classes, colours), (ROOM[0] + GAP, 0))
    pen, left = ImageDraw.Draw(strip), 2 * (ROOM[0] + GAP)
    name = f"{one.path.rpartition('/')[2]}   {one.size[0]}x{one.size[1]}"
    _write(pen, (left, 0), name, 15, INK, LEGEND)
    labelled = f"{sum(one.shares.values()):.1%} of the pixels labelled"
    _write(pen, (left, LINE), labelled if one.shares else "no labelled pixel", 14, SOFT, LEGEND)
    for place, (number, text, share) in enumerate(entries, 2):
        top = place * LINE
        if number is not None:
            box = (left, top + 3, left + SWATCH, top + 3 + SWATCH)
            pen.rectangle(box, fill=colours[number], outline=INK)
        _write(pen, (left + SWATCH + 8, top), text, 15, INK, LEGEND - SWATCH - 70)
        pen.text((left + LEGEND, top), share, SOFT, ImageFont.load_default(14), anchor="ra")
    return strip


def _entries(one: Example, label_set: LabelSet) -> Iterator[tuple[int | None, str, str]]:
    """The classes of an example, largest first: number, name, share."""
    room = max(ROOM[1] // LINE - 3, 1)
    ranked = sorted(one.shares, key=lambda number: -one.shares[number])
    for number in ranked[:room]:
        share = one.shares[number]
        yield number, label_set.names[number], f"{share:.1%}" if share >= 0.001 else "<0.1%"
    if len(ranked) > room:
        yield None, f"and {len(ranked) - room} smaller classes", ""


def _write(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    points: int,
    colour: str,
    room: float,
) -> None:
    """Write text, cut with an ellipsis where it is wider than the room."""
    font = ImageFont.load_default(points)
    if font.getlength(text) > room:
        while text and font.getlength(text + "…") > room:
            text = text[:-1]
        text += "…"
    pen.text(at, text, fill=colour, font=font)
