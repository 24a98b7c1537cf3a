"""The picture of a segmentation run: image, labels, prediction, line by line, with a legend.

With several label sets of the same images (objects and parts) their columns stand side by side.
What is ignored is faded in both maps: it is neither trained nor scored. The classes that cover most
have a colour of their own, told apart with colour blindness too; all others share a grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data import images as im
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.data.files import replacing
from pa.errors import MissingError
from pa.figures.overlay import OPACITY, Colour, over
from pa.probe.segmentation.colours import MOST, OTHER, palette
from pa.probe.segmentation.labels import LabelMaps
from pa.probe.segmentation.score import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = tuple[Image.Image, list[Map], list[Map]]

DPI = 200
LONG_SIDE = 640  # pixels of one picture; more would not be seen at this width

# Inches.
_COLUMN, _GAP, _MARGIN = 2.15, 0.06, 0.12
_HEAD, _LINE, _BELOW = 0.42, 0.21, 0.24
_POINTS = 9
_LEGEND_COLUMN = 2.15
_DARKEST, _MIDDLE = 128, 192  # grey levels of what is black, and half way to white, below colours


def check(root: Path, images: Sequence[dict[str, Any]]) -> None:
    """Raise `MissingError` where images are not here: before the work, not after it."""
    missing = [image["path"] for image in images if not (root / image["path"]).is_file()]
    if missing:
        raise MissingError(
            f"figures need the images themselves: {len(missing)} of {len(images)} are not in "
            f"{root}, such as {missing[0]}. Give their folder with --root, or leave out --figures."
        )


def draw(
    path: Path,
    shown: Sequence[Shown],
    maps: Sequence[LabelMaps],
    heads_per_set: int,
    root: Path,
    title: str,
    description: str,
) -> None:
    """Draw images with the labels of every set and the predictions of its first head.

    `shown` holds `heads_per_set` predictions for each label set, set by set; images are read from
    `root`. Writes a PNG of 200 dpi, with `title` above and `description` in its metadata; raises
    `ImageError`, `StorageError`.
    """
    pictures = [_picture(one, heads_per_set, root) for one in shown]
    figure = _figure(pictures, maps, title)
    about = {"Title": title, "Description": description, "Software": "pa"}
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata=about)


def _figure(pictures: Sequence[Picture], maps: Sequence[LabelMaps], title: str) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 + 2 * len(maps)
    colours = [
        colours_of([one[1][index] for one in pictures], [one[2][index] for one in pictures])
        for index in range(len(maps))
    ]
    sizes = [_fitted(one[0]) for one in pictures]
    width = 2 * _MARGIN + columns * _COLUMN + (columns - 1) * _GAP
    per_line = max(1, int((width - 2 * _MARGIN) / _LEGEND_COLUMN))
    legends = [
        _BELOW + _LINE * -(-len(_entries(of, one)) // per_line) + _GAP
        for of, one in zip(colours, maps, strict=True)
    ]
    height = _MARGIN + _HEAD + sum(tall for _, tall in sizes) + _GAP * len(sizes) + sum(legends)
    figure = Figure(figsize=(width, height))
    heads = ["image"]
    for one in maps:
        name = f"{one.name}: " if len(maps) > 1 else ""
        heads += [f"{name}labels", f"{name}prediction"]
    figure.text(_MARGIN / width, 1 - _MARGIN / height, title, va="top", fontsize=_POINTS)
    top = _MARGIN + _HEAD
    for line, (size, (picture, truths, guesses)) in enumerate(zip(sizes, pictures, strict=True)):
        wide, tall = size
        cells, below = [picture], pale(picture)
        for truth, guess, of in zip(truths, guesses, colours, strict=True):
            cells += [over(below, truth, dict(of)), over(below, guess, dict(of))]
        for column, cell in enumerate(cells):
            left = _MARGIN + column * (_COLUMN + _GAP) + (_COLUMN - wide) / 2
            box = (left / width, 1 - (top + tall) / height, wide / width, tall / height)
            axes = figure.add_axes(box)
            axes.imshow(np.asarray(cell), aspect="auto", interpolation="lanczos")
            axes.set_axis_off()
            if line == 0:
                axes.set_title(heads[column], fontsize=_POINTS, pad=3)
        top += tall + _GAP
    for one, of, tall in zip(maps, colours, legends, strict=True):
        box = (_MARGIN / width, 1 - (top + tall) / height, 1 - 2 * _MARGIN / width, tall / height)
        _legend(figure.add_axes(box), one, of, per_line, tall)
        top += tall
    return figure


def _fitted(picture: Image.Image) -> tuple[float, float]:
    """Width and height in inches: as wide as its column, or as tall as a square one."""
    scale = _COLUMN / max(picture.size)
    return picture.width * scale, picture.height * scale


def pale(picture: Image.Image) -> Image.Image:
    """Grey and light, so that the colours of classes stay those of the legend."""
    return (
        picture.convert("L")
        .point([_DARKEST + level * (255 - _DARKEST) // 255 for level in range(256)])
        .convert("RGB")
    )


def _picture(one: Shown, heads_per_set: int, root: Path) -> Picture:
    """The picture, and the labels and predictions of every set, at the size they are drawn."""
    file = root / one.image["path"]
    image = im.decode(file.read_bytes(), file)
    scale = min(1.0, LONG_SIDE / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    at = np.ix_(masks.nearest(height, image.height), masks.nearest(width, image.width))
    truths = [truth[at] for truth in one.truth]
    firsts = one.predicted[::heads_per_set]
    guesses = [
        np.where(truth == IGNORED, np.uint8(IGNORED), guess[at])
        for truth, guess in zip(truths, firsts, strict=True)
    ]
    return image.resize((width, height), Image.Resampling.LANCZOS), truths, guesses


def colours_of(truths: Sequence[Map], guesses: Sequence[Map]) -> list[tuple[int, Colour]]:
    """Every class that is drawn, with its colour; those that cover most come first."""
    pixels: npt.NDArray[np.int64] = np.zeros(IGNORED + 1, np.int64)
    for drawn in (*truths, *guesses):
        pixels += np.bincount(drawn.ravel(), minlength=IGNORED + 1)
    pixels[IGNORED] = 0
    ranked = np.argsort(-pixels, kind="stable")[: int((pixels > 0).sum())].tolist()
    own = palette(min(len(ranked), MOST))
    return list(zip(ranked, own + (len(ranked) - len(own)) * (OTHER,), strict=True))


def _entries(colours: Sequence[tuple[int, Colour]], maps: LabelMaps) -> list[tuple[str, Colour]]:
    """The lines of the legend: classes that are drawn, and what shares the grey."""
    entries = [(maps.classes[number], colour) for number, colour in colours[:MOST]]
    if (others := len(colours) - MOST) > 0:
        entries.append((f"{others} smaller classes" if others > 1 else "1 smaller class", OTHER))
    return entries


def _legend(
    axes: Axes, maps: LabelMaps, colours: Sequence[tuple[int, Colour]], per_line: int, tall: float
) -> None:
    """A swatch and a name for every class, in inches from the top left."""
    from matplotlib.patches import Rectangle

    axes.set_xlim(0, per_line * _LEGEND_COLUMN)
    axes.set_ylim(tall, 0)
    axes.set_axis_off()
    said = (
        f"{maps.name}: {len(colours)} of {len(maps.classes)} classes are drawn; ignored pixels are "
        f"faded"
    )
    axes.text(0, _BELOW / 2, said, fontsize=_POINTS, va="center")
    for place, (name, colour) in enumerate(_entries(colours, maps)):
        line, column = divmod(place, per_line)
        x, y = column * _LEGEND_COLUMN, _BELOW + _LINE * line
        # As it looks over the middle of the pale image.
        fill = tuple((OPACITY * level + (1 - OPACITY) * _MIDDLE) / 255 for level in colour)
        axes.add_patch(Rectangle((x, y), 0.16, 0.14, facecolor=fill, edgecolor="#1a1a1a", lw=0.5))
        axes.text(x + 0.23, y + 0.07, name, fontsize=_POINTS, va="center")
