"""Queries and their neighbours by several encoders (Figures 2, 7, 8) or representations (4).

One section per query: at the left its image with a red box around the patch, at the right a panel
for each answer, a tight grid of its neighbours by rank, row by row. All lengths are in inches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pa.data.crops import Crops
from pa.figures.neighbours import edged, query_picture
from pa.figures.style import PRINT_DPI, Metadata, page
from pa.index.search import SearchResult

PER_LINE = 12  # squares side by side, of all panels of a line together
QUERY_SHARE = 0.18  # of the width
_GAP, _GUTTER, _TITLE, _BETWEEN = 0.02, 0.14, 0.19, 0.22
_RED, _LINE = "#ff0000", 1.5  # points
_POINTS = 8.5


@dataclass(frozen=True, eq=False)
class Panel:
    """One answer: its title, the neighbours, and the pictures of the store they come from."""

    title: str
    result: SearchResult
    crops: Crops


@dataclass(frozen=True)
class Layout:
    """Lengths of a section of `n_panels` panels, `across` side by side, of k squares each.

    Sections of several queries stand below each other; `lettered` leaves a line above each for (a),
    (b) …
    """

    width: float
    n_panels: int
    across: int
    k: int
    lettered: bool = False

    @property
    def columns(self) -> int:
        """Squares in a row of a panel."""
        return max(1, min(self.k, PER_LINE // self.across))

    @property
    def rows(self) -> int:
        return math.ceil(self.k / self.columns)

    @property
    def query(self) -> float:
        """The longer side of the query's image."""
        return self.width * QUERY_SHARE

    @property
    def panel(self) -> float:
        """Width of a panel."""
        free = self.width - self.query - self.across * _GUTTER
        return free / self.across

    @property
    def cell(self) -> float:
        return (self.panel - (self.columns - 1) * _GAP) / self.columns

    @property
    def line(self) -> float:
        """Height of a line of panels, the title above them included."""
        return _TITLE + self.rows * (self.cell + _GAP)

    @property
    def height(self) -> float:
        """Height of the section."""
        lines = math.ceil(self.n_panels / self.across)
        return max(lines * self.line, self.query + _TITLE)

    @property
    def shows_patch(self) -> bool:
        """Whether there is room for the patch, enlarged, below the query's image."""
        return self.height >= 2 * (self.query + _TITLE)

    def corner(self, panel: int) -> tuple[float, float]:
        """Left and top of a panel's first square, from the section's corner."""
        line, column = divmod(panel, self.across)
        left = self.query + _GUTTER + column * (self.panel + _GUTTER)
        return left, line * self.line + _TITLE

    def square(self, place: int) -> tuple[float, float]:
        """Left and top of a square in its panel."""
        row, column = divmod(place, self.columns)
        return column * (self.cell + _GAP), row * (self.cell + _GAP)


def draw(
    sections: Sequence[Sequence[Panel]],
    paths: Sequence[Path],
    *,
    width: float,
    across: int = 1,
    metadata: Metadata | None = None,
) -> float:
    """Draw the panels of each query, and write them to every path. Returns the height in inches.

    All panels of a section answer the same query. Raises `MissingError` where an image of the
    dataset is not there.
    """
    k = max(len(panel.result.neighbours) for section in sections for panel in section)
    layouts = [Layout(width, len(section), across, k) for section in sections]
    height = sum(layout.height + _BETWEEN for layout in layouts) - _BETWEEN
    paper = _Paper(width, height)
    top = 0.0
    for number, (section, layout) in enumerate(zip(sections, layouts, strict=True)):
        letter = f"({chr(ord('a') + number % 26)})" if len(sections) > 1 else ""
        _section(paper, section, layout, top, letter)
        top += layout.height + _BETWEEN
    paper.write(paths, metadata)
    return height


def _section(
    paper: _Paper, section: Sequence[Panel], layout: Layout, top: float, letter: str
) -> None:
    _query(paper, section[0], layout, top + _TITLE)
    paper.text(0, top + _TITLE, letter)
    for number, panel in enumerate(section):
        left, upper = layout.corner(number)
        paper.text(left, top + upper, panel.title)
        for place, neighbour in enumerate(panel.result.neighbours):
            x, y = layout.square(place)
            side = paper.pixels(layout.cell)
            paper.paste(panel.crops.region(neighbour.row, side), left + x, top + upper + y)


def _query(paper: _Paper, panel: Panel, layout: Layout, top: float) -> None:
    canvas, box = query_picture(panel.result.query, panel.crops)
    scale = layout.query / max(canvas.size)
    size = tuple(max(1, paper.pixels(length * scale)) for length in canvas.size)
    picture = canvas.convert("RGB")
    paper.paste(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS), 0, top)
    limits = (canvas.width, canvas.height, canvas.width, canvas.height)
    inside = [scale * min(max(v, 0), limit) for v, limit in zip(box, limits, strict=True)]
    paper.frame(inside[0], top + inside[1], inside[2] - inside[0], inside[3] - inside[1])
    if layout.shows_patch:
        below = top + canvas.height * scale + _TITLE
        x0, y0, x1, y1 = (round(value) for value in box)
        side = paper.pixels(layout.query)
        patch = picture.crop((x0, y0, x1, y1)).resize((side, side), Image.Resampling.LANCZOS)
        paper.paste(patch, 0, below)
        paper.frame(0, below, layout.query, layout.query)


class _Paper:
    """One page: photographs as pixels in one picture, text and frames as vectors above it."""

    def __init__(self, width: float, height: float) -> None:
        self.size = (width, height)
        self.photographs = Image.new("RGB", (self.pixels(width), self.pixels(height)), "white")
        self._texts: list[tuple[float, float, str]] = []
        self._frames: list[tuple[float, float, float, float]] = []

    @staticmethod
    def pixels(length: float) -> int:
        return round(length * PRINT_DPI)

    def paste(self, picture: Image.Image, left: float, top: float) -> None:
        self.photographs.paste(edged(picture), (self.pixels(left), self.pixels(top)))

    def text(self, left: float, bottom: float, text: str) -> None:
        """Text whose foot stands a little above `bottom`."""
        self._texts.append((left, bottom - 0.05, text))

    def frame(self, left: float, top: float, width: float, height: float) -> None:
        """A red frame inside a box, so that it is whole at the border of an image."""
        half = _LINE / 72 / 2
        self._frames.append((left + half, top + half, width - 2 * half, height - 2 * half))

    def write(self, paths: Sequence[Path], metadata: Metadata | None) -> None:
        from matplotlib.patches import Rectangle

        width, height = self.size
        with page(paths, self.size, metadata) as figure:
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.imshow(
                np.asarray(self.photographs),
                extent=(0, width, height, 0),
                interpolation="none",
                aspect="auto",
            )
            axes.set(xlim=(0, width), ylim=(height, 0))
            for left, bottom, text in self._texts:
                axes.text(left, bottom, text, fontsize=_POINTS, va="baseline")
            for left, top, wide, tall in self._frames:
                frame = Rectangle((left, top), wide, tall, fill=False, ec=_RED, lw=_LINE)
                frame.set_joinstyle("miter")
                axes.add_patch(frame)
