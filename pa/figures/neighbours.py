"""The query-and-neighbours figure of `pa search` (as the paper's Figures 2 and 4).

One block per search result: on the left the query's image with a red box around the query patch,
on the right its neighbours as a grid of equal squares, row by row in the order of their rank.
Blocks of several encoders, representations or queries are stacked. All lengths are in pixels at
200 dpi; the 24 neighbours of the paper make a figure 6.5 inches wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops, ImageDraw

from pa.data.crops import Crops
from pa.data.datasets.imagenet import readable_label
from pa.data.schema import Box
from pa.errors import UsageError
from pa.figures.style import DPI, page
from pa.index.search import Query, SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RED = "#ff0000"  # of the frame around the query patch, as in the paper

_CELL, _GAP, _GUTTER, _TITLE, _BETWEEN, _MARGIN = 112, 4, 20, 40, 28, 12
_LINE, _OUTLINE = 6, 2  # widths of the red frame and of its white outline
_EDGE = "#d8d8d8"  # darkest border of a picture: a white patch would blend into the page
_TITLE_CHARACTER = 14  # upper estimate of the width of a character of a title
_QUERY_TITLE_CHARACTERS = 30  # that fit above the query's image


def draw(results: Sequence[SearchResult], crops: Crops | Sequence[Crops], path: Path | str) -> Path:
    """Draw search results, one block each, to a PNG (200 dpi), PDF or SVG file.

    Parameters
    ----------
    crops : Crops or sequence of Crops
        Pictures of all results, or of each result if they come from several stores.

    Raises
    ------
    UsageError
        For another suffix or a query without a picture.
    MissingError
        If an image of the dataset is missing.
    """
    crops = [crops] * len(results) if isinstance(crops, Crops) else list(crops)
    if not results or len(crops) != len(results):
        raise UsageError(
            f"a figure needs at least one result, and crops for each: found {len(results)} results "
            f"and {len(crops)} crops."
        )
    layouts = [_Layout.of(result) for result in results]
    width = max(layout.width for layout in layouts) + 2 * _MARGIN
    height = sum(layout.height + _BETWEEN for layout in layouts) - _BETWEEN + 2 * _MARGIN
    with page([Path(path)], (width / DPI, height / DPI), dpi=DPI) as figure:
        # One axes over the whole page, in pixels from the top left corner.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        top = _MARGIN
        for result, layout, of_result in zip(results, layouts, crops, strict=True):
            _draw_block(axes, result, of_result, layout, _MARGIN, top)
            top += layout.height + _BETWEEN
        axes.set(xlim=(0, width), ylim=(height, 0))
    return Path(path)


@dataclass(frozen=True)
class _Layout:
    """Positions in one block, in pixels from its top left corner."""

    columns: int
    rows: int
    title_width: int

    @classmethod
    def of(cls, result: SearchResult) -> _Layout:
        # Up to 24 in 3 rows as in the paper, 8 per row at most; more keep these proportions.
        k = len(result.neighbours)
        columns = math.ceil(k / 3) if k <= 24 else math.ceil(math.sqrt(k * 8 / 3))
        return cls(columns, math.ceil(k / columns), len(_title(result)) * _TITLE_CHARACTER)

    @property
    def query_side(self) -> int:
        """Side of the query's image: three cells, or the height of a larger grid up to five."""
        return _span(max(3, min(self.rows, 5)))

    @property
    def width(self) -> int:
        return self.query_side + _GUTTER + max(_span(self.columns), self.title_width)

    @property
    def height(self) -> int:
        return _TITLE + max(self.query_side, _span(self.rows))

    def cell(self, index: int) -> tuple[int, int]:
        """Return the left and top edge of a neighbour, counted from 0."""
        row, column = divmod(index, self.columns)
        left = self.query_side + _GUTTER + column * (_CELL + _GAP)
        return left, _TITLE + row * (_CELL + _GAP)


def _span(cells: int) -> int:
    return cells * _CELL + (cells - 1) * _GAP


def _draw_block(
    axes: Axes, result: SearchResult, crops: Crops, layout: _Layout, left: int, top: int
) -> None:
    query = result.query
    canvas, box = query_picture(query, crops)
    scale = layout.query_side / max(canvas.size)
    size = (round(canvas.width * scale), round(canvas.height * scale))
    picture = canvas.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    _show(axes, picture, left, top + _TITLE)
    _draw_box(axes, box, scale, left, top + _TITLE, size)
    number = "query" if query.row is None else f"query {query.row}"
    name = readable_label(query.label or "") or (Path(query.path).stem if query.path else "")
    title = f"{number} · {name}" if name else number
    if len(title) > _QUERY_TITLE_CHARACTERS:
        title = f"{title[: _QUERY_TITLE_CHARACTERS - 1]}…"
    baseline = top + _TITLE - 12  # of both titles, above the pictures
    axes.text(left, baseline, title, fontsize=7, color="#444444")
    grid_left = left + layout.cell(0)[0]
    axes.text(grid_left, baseline, _title(result), fontsize=8, weight="bold")
    for i, neighbour in enumerate(result.neighbours):
        x, y = layout.cell(i)
        _show(axes, crops.region(neighbour.row, _CELL), left + x, top + y)
        right, bottom = left + x + _CELL, top + y + _CELL
        write_number(axes, right - 4, bottom - 5, f"{neighbour.cosine:.2f}", 4.8)


def _title(result: SearchResult) -> str:
    cut_by = f" · protocol {result.protocol}" if result.protocol else ""
    return f"{result.encoder} · {result.representation}{cut_by}"


def query_picture(query: Query, crops: Crops) -> tuple[Image.Image, Box]:
    """Return the query's image and its box. Raises `UsageError` for a query without a picture."""
    if query.row is not None:
        return crops.canvas(query.row), crops.box(query.row)
    if query.canvas is None or query.box is None:
        raise UsageError(
            "the query has no picture: give its image (canvas) and box with the vector."
        )
    return query.canvas, query.box


def _draw_box(
    axes: Axes, box: Box, scale: float, left: int, top: int, size: tuple[int, int]
) -> None:
    """Draw a red frame inside the box, so that it is complete at the border of the image.

    The white outline makes it visible on a red object.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    x0, x1 = (min(max(x * scale, 0), size[0]) for x in (box[0], box[2]))
    y0, y1 = (min(max(y * scale, 0), size[1]) for y in (box[1], box[3]))
    axes.add_patch(
        Rectangle(
            (left + x0 + _LINE / 2, top + y0 + _LINE / 2),
            max(x1 - x0 - _LINE, 1),
            max(y1 - y0 - _LINE, 1),
            fill=False,
            edgecolor=RED,
            linewidth=_LINE * 72 / DPI,
            path_effects=[withStroke(linewidth=(_LINE + 2 * _OUTLINE) * 72 / DPI, foreground="w")],
            joinstyle="miter",
            zorder=3,
        )
    )


def _show(axes: Axes, picture: Image.Image, left: int, top: int) -> None:
    right, bottom = left + picture.width, top + picture.height
    extent = (left, right, bottom, top)
    axes.imshow(edged(picture), extent=extent, interpolation="nearest", aspect="auto", zorder=1)


def edged(picture: Image.Image) -> Image.Image:
    """Return a picture with a border that is visible on white paper."""
    hairline = Image.new("RGB", picture.size, "white")
    ImageDraw.Draw(hairline).rectangle((0, 0, picture.width - 1, picture.height - 1), outline=_EDGE)
    return ImageChops.darker(picture, hairline)


def write_number(axes: Axes, right: float, bottom: float, text: str, points: float) -> None:
    """Write white text on a dark box, legible on any picture, by its lower right corner."""
    box = {"boxstyle": "square,pad=0.15", "facecolor": "#000000a0", "edgecolor": "none"}
    look: Any = {"fontsize": points, "color": "white", "ha": "right", "va": "bottom"}
    axes.text(right, bottom, text, bbox=box, zorder=4, **look)  # above pictures and frames
