"""Predictions of segmentation heads next to their labels (Figure 6: objects against parts).

Every image has one line per label set; the columns are the image, the labels, and one encoder each.
Ignored pixels are faded. The classes with the most pixels have distinct colours, all others share a
grey. All lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pa.data import images as im
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.figures.colours import MAX_COLOURS, OTHER, Colour, colours_of, overlay, pale
from pa.figures.style import PAGE_WIDTH, PRINT_DPI, Metadata, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pa.probe.segmentation.run import SegmentationRun

_GAP = 0.04  # between pictures
_SIDE, _HEAD = 0.2, 0.2  # of the titles of lines and of columns
_BETWEEN, _APART = 0.1, 0.15  # between examples, vertically and horizontally
_MIN_WIDTH = 0.9  # of a picture; with room for more, examples are placed side by side
_POINTS, _SMALL = 8, 7  # font sizes
_LINE, _SWATCH = 0.165, 0.11
_ENTRY = 1.25  # width of a class in the legend
LINE_TITLES = {"object": "objects", "part": "parts"}  # of pascal-object, ade20k-part …
_MAX_ASPECT = 1.15  # height over width of a picture


@dataclass(frozen=True, eq=False)
class Line:
    """One image by one label set: labels, and the prediction of every encoder, all (H, W)."""

    truth: Map
    predicted: list[Map]


@dataclass(frozen=True, eq=False)
class Example:
    """One image, with a line for each label set."""

    image: Image.Image
    lines: list[Line]


@dataclass(frozen=True)
class Labels:
    """A label set: the title of its lines, and its classes."""

    title: str
    classes: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """Lengths of a page of examples: `across` of them side by side, of `columns` pictures each, in
    lines as high as their highest picture."""

    width: float
    columns: int
    n_sets: int
    across: int

    @classmethod
    def of(cls, width: float, n_encoders: int, n_sets: int, n_examples: int) -> Layout:
        columns = 2 + n_encoders  # image, labels, predictions
        fitting = int((width + _APART) / (_SIDE + columns * _MIN_WIDTH + _APART))
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
        """Height of a line of examples whose highest picture has this height."""
        return self.n_sets * (height + _GAP) + _BETWEEN


def line_title(name: str, n_sets: int) -> str:
    """Return the title of a label set in a figure: its kind, if there are several sets."""
    kind = name.rpartition("-")[2]
    return LINE_TITLES.get(kind, name) if n_sets > 1 else name


def draw_run(path: Path, run: SegmentationRun) -> None:
    """Draw labels and predictions of a run, by the first head of each label set, to a PNG."""
    examples = []
    for shown in run.shown:
        file = run.image_root / shown.image["path"]
        predicted = shown.predicted[:: run.heads_per_set]
        lines = [Line(truth, [p]) for truth, p in zip(shown.truth, predicted, strict=True)]
        examples.append(Example(im.decode(file.read_bytes(), file), lines))
    firsts = run.results[:: run.heads_per_set]
    first, test = firsts[0], firsts[0].result.stores.test
    metadata = Metadata(
        f"Segmentation of {test.title}: protocol {first.recipe.protocol}, "
        f"{first.recipe.iterations:,} iterations at learning rate {first.recipe.lr:g}",
        "Image, labels and prediction of a linear head; ignored pixels are faded.",
        f"result {first.result_path.name}",
    )
    sets = [Labels(line_title(r.maps.name, len(firsts)), r.maps.classes) for r in firsts]
    draw(examples, sets, ["prediction"], [path], width=PAGE_WIDTH, metadata=metadata)


def draw(
    examples: Sequence[Example],
    sets: Sequence[Labels],
    encoders: Sequence[str],
    paths: Sequence[Path],
    *,
    width: float,
    metadata: Metadata | None = None,
) -> float:
    """Draw examples and write them to every path; return the height in inches."""
    layout = Layout.of(width, len(encoders), len(sets), len(examples))
    drawn = [_reduced(example, layout.column) for example in examples]
    colours = []
    for lines in zip(*(example.lines for example in drawn), strict=True):  # one label set
        colours.append(colours_of([m for line in lines for m in (line.truth, *line.predicted)]))
    rows = [drawn[i : i + layout.across] for i in range(0, len(drawn), layout.across)]
    heights = [max(example.image.height for example in row) / PRINT_DPI for row in rows]
    per_line = max(1, int((width - _SIDE) / _ENTRY))
    legends = [
        _LINE * (1 + -(-len(_entries(of, labels)) // per_line)) + _BETWEEN
        for of, labels in zip(colours, sets, strict=True)
    ]
    height = _HEAD + sum(map(layout.block, heights)) + sum(legends)
    with page(paths, (width, height), metadata) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for column in range(min(layout.across, len(drawn))):
            left = column * (layout.example + _APART) + _SIDE + layout.column / 2
            for number, head in enumerate(["image", "labels", *encoders]):
                x = left + number * (layout.column + _GAP)
                axes.text(x, _HEAD - 0.06, head, ha="center", fontsize=_POINTS)
        top = _HEAD
        for row, row_height in zip(rows, heights, strict=True):
            for column, example in enumerate(row):
                left = column * (layout.example + _APART)
                _example(axes, example, sets, colours, layout, (left, top, row_height))
            top += layout.block(row_height)
        for labels, of, legend_height in zip(sets, colours, legends, strict=True):
            _legend(axes, labels.title, _entries(of, labels), top, per_line)
            top += legend_height
        axes.set(xlim=(0, width), ylim=(height, 0))  # inches, from the top left
    return height


def _example(
    axes: Axes,
    example: Example,
    sets: Sequence[Labels],
    colours: Sequence[Sequence[tuple[int, Colour]]],
    layout: Layout,
    box: tuple[float, float, float],
) -> None:
    """Draw an example with its corner (left, top) and the height of a line; the image is centred
    on its lines."""
    corner, top, line_height = box
    left = corner + _SIDE + (layout.column - example.image.width / PRINT_DPI) / 2
    height = example.image.height / PRINT_DPI
    middle = top + (layout.block(line_height) - _BETWEEN - _GAP - height) / 2
    _show(axes, example.image, left, middle)
    background = pale(example.image)
    for line, labels, of in zip(example.lines, sets, colours, strict=True):
        x, y = corner + _SIDE - 0.05, top + line_height / 2
        title = axes.text(x, y, labels.title, ha="right", va="center", fontsize=_POINTS)
        title.set_rotation(90)  # reads upwards
        for number, classes in enumerate([line.truth, *line.predicted], 1):
            x = left + number * (layout.column + _GAP)
            picture = overlay(background, classes, dict(of))
            _show(axes, picture, x, top + (line_height - height) / 2)
        top += line_height + _GAP


def _show(axes: Axes, picture: Image.Image, left: float, top: float) -> None:
    extent = (left, left + picture.width / PRINT_DPI, top + picture.height / PRINT_DPI, top)
    axes.imshow(np.asarray(picture), extent=extent, interpolation="none", aspect="auto")


def _reduced(example: Example, column: float) -> Example:
    """Resize an example to the pixels that are printed, and ignore predictions without labels."""
    image = example.image
    scale = min(column / image.width, _MAX_ASPECT * column / image.height) * PRINT_DPI
    width, height = (max(1, round(length * scale)) for length in image.size)
    # Class ids are not interpolated: the nearest pixel is taken.
    at = np.ix_(masks.nearest(height, image.height), masks.nearest(width, image.width))
    lines = []
    for line in example.lines:
        ignored = line.truth[at] == IGNORED
        predicted = [np.where(ignored, np.uint8(IGNORED), p[at]) for p in line.predicted]
        lines.append(Line(line.truth[at], predicted))
    return Example(image.resize((width, height), Image.Resampling.LANCZOS), lines)


def _entries(colours: Sequence[tuple[int, Colour]], labels: Labels) -> list[tuple[str, Colour]]:
    """Return the legend: the classes drawn, and one entry for those that share the grey."""
    named = [(labels.classes[number], colour) for number, colour in colours[:MAX_COLOURS]]
    others = len(colours) - MAX_COLOURS
    return [*named, *([(f"{others} smaller", OTHER)] if others > 0 else [])]


def _legend(
    axes: Axes, title: str, entries: Sequence[tuple[str, Colour]], top: float, per_line: int
) -> None:
    from matplotlib.patches import Rectangle

    axes.text(_SIDE, top + _LINE / 2, title, va="center", fontsize=_SMALL, weight="bold")
    for entry, (name, colour) in enumerate(entries):
        line, column = divmod(entry, per_line)
        left, upper = _SIDE + column * _ENTRY, top + _LINE * (line + 1)
        fill = tuple(level / 255 for level in colour)
        corner = (left, upper + (_LINE - _SWATCH) / 2)
        axes.add_patch(Rectangle(corner, _SWATCH, _SWATCH, facecolor=fill, ec="#1a1a1a", lw=0.4))
        text, middle = name.replace("_", " "), upper + _LINE / 2
        axes.text(left + _SWATCH + 0.05, middle, text, va="center", fontsize=_SMALL)
