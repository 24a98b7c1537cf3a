"""Objects against parts (Figure 6): an image, its labels, and what each encoder's head predicts.

Every image has a line for each label set; its columns are the image, the labels, and one encoder
each. What is ignored is faded. The classes that cover most have a colour of their own, told apart
with colour blindness too; all others share a grey. All lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.figures.overlay import Colour, over
from pa.figures.style import PRINT_DPI, Metadata, page
from pa.probe.segmentation.colours import MOST, OTHER
from pa.probe.segmentation.figure import colours_of, pale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GAP, _SIDE, _HEAD, _BETWEEN, _APART = 0.04, 0.2, 0.2, 0.1, 0.15
_LEAST = 0.9  # wide is a picture, before examples stand under each other
_POINTS, _SMALL = 8, 7
_LINE, _SWATCH = 0.165, 0.11
_ENTRY = 1.25  # of a class in the legend
_TALLEST = 1.15  # times its width, of a picture


@dataclass(frozen=True, eq=False)
class Line:
    """One image by one label set: labels, and the prediction of every encoder, all (H, W)."""

    truth: Map
    predicted: list[Map]


@dataclass(frozen=True, eq=False)
class Example:
    """One image, and a line for each label set."""

    image: Image.Image
    lines: list[Line]


@dataclass(frozen=True)
class Labels:
    """A label set: what its lines are called, and its classes."""

    title: str
    classes: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """Lengths of a page of examples: `across` of them side by side, of `columns` pictures each, in
    lines as tall as their tallest picture."""

    width: float
    columns: int
    n_sets: int
    across: int

    @classmethod
    def of(cls, width: float, n_encoders: int, n_sets: int, n_examples: int) -> Layout:
        columns = 2 + n_encoders
        fitting = int((width + _APART) / (_SIDE + columns * _LEAST + _APART))
        return cls(width, columns, n_sets, max(1, min(n_examples, fitting)))

    @property
    def example(self) -> float:
        """Width of an example."""
        return (self.width - (self.across - 1) * _APART) / self.across

    @property
    def column(self) -> float:
        """Width of a picture."""
        return (self.example - _SIDE - (self.columns - 1) * _GAP) / self.columns

    def block(self, height: float) -> float:
        """Height of a line of examples whose tallest picture is this high."""
        return self.n_sets * (height + _GAP) + _BETWEEN


def draw(
    examples: Sequence[Example],
    sets: Sequence[Labels],
    encoders: Sequence[str],
    paths: Sequence[Path],
    *,
    width: float,
    metadata: Metadata | None = None,
) -> float:
    """Draw examples and write them to every path; returns the height in inches."""
    layout = Layout.of(width, len(encoders), len(sets), len(examples))
    shown = [_reduced(one, layout.column) for one in examples]
    colours = [
        colours_of(
            [one.lines[place].truth for one in shown],
            [guess for one in shown for guess in one.lines[place].predicted],
        )
        for place in range(len(sets))
    ]
    rows = [shown[i : i + layout.across] for i in range(0, len(shown), layout.across)]
    heights = [max(one.image.height for one in row) / PRINT_DPI for row in rows]
    per_line = max(1, int((width - _SIDE) / _ENTRY))
    legends = [
        _LINE * (1 + -(-len(_entries(of, labels)) // per_line)) + _BETWEEN
        for of, labels in zip(colours, sets, strict=True)
    ]
    height = _HEAD + sum(layout.block(high) for high in heights) + sum(legends)
    with page(paths, (width, height), metadata) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place in range(min(layout.across, len(shown))):
            _heads(axes, layout, place, ["image", "labels", *encoders])
        top = _HEAD
        for row, high in zip(rows, heights, strict=True):
            for place, one in enumerate(row):
                left = place * (layout.example + _APART)
                _example(axes, one, sets, colours, layout, (left, top, high))
            top += layout.block(high)
        for labels, of, high in zip(sets, colours, legends, strict=True):
            _legend(axes, labels, of, top, per_line)
            top += high
        axes.set(xlim=(0, width), ylim=(height, 0))
    return height


def _heads(axes: Axes, layout: Layout, place: int, heads: Sequence[str]) -> None:
    left = place * (layout.example + _APART) + _SIDE
    for number, head in enumerate(heads):
        middle = left + number * (layout.column + _GAP) + layout.column / 2
        axes.text(middle, _HEAD - 0.06, head, ha="center", fontsize=_POINTS)


def _example(
    axes: Axes,
    one: Example,
    sets: Sequence[Labels],
    colours: Sequence[Sequence[tuple[int, Colour]]],
    layout: Layout,
    place: tuple[float, float, float],
) -> None:
    """One example whose corner and height of a picture are `place`; the image is beside the middle
    of its lines."""
    side, top, high = place
    left = side + _SIDE + (layout.column - one.image.width / PRINT_DPI) / 2
    tall = one.image.height / PRINT_DPI
    _show(axes, one.image, left, top + (layout.block(high) - _BETWEEN - _GAP - tall) / 2)
    below = pale(one.image)
    for line, labels, of in zip(one.lines, sets, colours, strict=True):
        middle, upper = top + high / 2, top + (high - tall) / 2
        edge = side + _SIDE - 0.05
        title = axes.text(edge, middle, labels.title, ha="right", va="center", fontsize=_POINTS)
        title.set_rotation(90)
        for number, classes in enumerate([line.truth, *line.predicted], 1):
            at = left + number * (layout.column + _GAP)
            _show(axes, over(below, classes, dict(of)), at, upper)
        top += high + _GAP


def _show(axes: Axes, picture: Image.Image, left: float, top: float) -> None:
    extent = (left, left + picture.width / PRINT_DPI, top + picture.height / PRINT_DPI, top)
    axes.imshow(np.asarray(picture), extent=extent, interpolation="none", aspect="auto")


def _reduced(one: Example, column: float) -> Example:
    """At the pixels that are printed: as wide as its column, or not much taller."""
    scale = min(column / one.image.width, _TALLEST * column / one.image.height) * PRINT_DPI
    width, height = (max(1, round(length * scale)) for length in one.image.size)
    at = np.ix_(masks.nearest(height, one.image.height), masks.nearest(width, one.image.width))
    lines = [
        Line(
            line.truth[at],
            [
                np.where(line.truth[at] == IGNORED, np.uint8(IGNORED), guess[at])
                for guess in line.predicted
            ],
        )
        for line in one.lines
    ]
    return Example(one.image.resize((width, height), Image.Resampling.LANCZOS), lines)


def _entries(colours: Sequence[tuple[int, Colour]], labels: Labels) -> list[tuple[str, Colour]]:
    named = [(labels.classes[number], colour) for number, colour in colours[:MOST]]
    others = len(colours) - MOST
    return [*named, *([(f"{others} smaller", OTHER)] if others > 0 else [])]


def _legend(
    axes: Axes,
    labels: Labels,
    colours: Sequence[tuple[int, Colour]],
    top: float,
    per_line: int,
) -> None:
    from matplotlib.patches import Rectangle

    axes.text(_SIDE, top + _LINE / 2, labels.title, va="center", fontsize=_SMALL, weight="bold")
    for place, (name, colour) in enumerate(_entries(colours, labels)):
        line, number = divmod(place, per_line)
        left, upper = _SIDE + number * _ENTRY, top + _LINE * (line + 1)
        fill = tuple(level / 255 for level in colour)
        box = (left, upper + (_LINE - _SWATCH) / 2)
        axes.add_patch(Rectangle(box, _SWATCH, _SWATCH, facecolor=fill, ec="#1a1a1a", lw=0.4))
        axes.text(
            left + _SWATCH + 0.05,
            upper + _LINE / 2,
            name.replace("_", " "),
            va="center",
            fontsize=_SMALL,
        )
