"""A page of photographs, with text and frames above them. All lengths are in inches."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pa.figures.style import INK, PRINT_DPI, SUFFIXES, Target, check_suffix, page

MARGIN = 0.04  # around a page: letters and frames do not touch its edge
RED = "#ff0000"  # of the frame around a query, as in the paper
_EDGE = "#d8d8d8"  # darkest border of a picture: a white one would blend into the page
_LONGEST = 400  # characters that are measured: no line of a page holds more


class Paper:
    """A page that grows downwards: photographs, with text and frames as vectors above them."""

    def __init__(self, target: Target, suffixes: Sequence[str] = SUFFIXES) -> None:
        for path in target.paths:
            check_suffix(path, suffixes)  # before the pictures are read
        self.target, self.suffixes = target, suffixes
        self.room = target.width - 2 * MARGIN
        self._pictures: list[tuple[float, float, Image.Image]] = []
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self._frames: list[tuple[float, float, float, float, dict[str, Any]]] = []

    def paste(self, picture: Image.Image, left: float, top: float, *, edged: bool = True) -> None:
        """Place a picture of `PRINT_DPI` dots per inch, with a border visible on white paper."""
        if edged:
            border = Image.new("RGB", picture.size, "white")
            corner = (picture.width - 1, picture.height - 1)
            ImageDraw.Draw(border).rectangle((0, 0, *corner), outline=_EDGE)
            picture = ImageChops.darker(picture.convert("RGB"), border)
        self._pictures.append((left, top, picture))

    def text(
        self,
        left: float,
        baseline: float,
        text: str,
        points: float = 8,
        *,
        room: float | None = None,
        **look: Any,
    ) -> None:
        """Write a line of text. To fit `room` inches it is made smaller, then shortened."""
        if room is not None:
            weight = look.get("weight", "normal")
            if fit(text, points, room, weight) != text:
                points = min(points, max(6, 0.8 * points))
            text = fit(text, points, room, weight)
        self._texts.append((left, baseline, text, {"fontsize": points, "color": INK, **look}))

    def badge(self, right: float, bottom: float, text: str, colour: str = "#000000") -> None:
        """Write white text on a dark box, legible on any picture, by its lower right corner."""
        box = {"boxstyle": "square,pad=0.15", "facecolor": f"{colour}b0", "edgecolor": "none"}
        look: Any = {"color": "white", "ha": "right", "va": "bottom", "bbox": box}
        self.text(right - 0.015, bottom - 0.02, text, 4.5, **look)

    def frame(
        self, left: float, top: float, width: float, height: float, colour: str, line: float = 1.5
    ) -> None:
        """Draw a frame of `line` points inside a box, with white lines visible on any colour."""
        from matplotlib.patheffects import withStroke

        halo = withStroke(linewidth=line + 0.8, foreground="white")
        look = {"fill": False, "ec": colour, "lw": line, "joinstyle": "miter"}
        half = line / 72 / 2  # inside, so that it is complete at the border of a picture
        box = (left + half, top + half, width - 2 * half, height - 2 * half)
        self._frames.append((*box, {**look, "path_effects": [halo]}))

    def fill(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Fill a box, such as the colour of a legend."""
        look = {"facecolor": colour, "edgecolor": "none"}
        self._frames.append((left, top, width, height, look))

    def write(self, height: float) -> float:
        """Write the page to its files, and return its height."""
        from matplotlib.patches import Rectangle

        # Whole pixels: a fraction would blur every photograph.
        width, height = (to_pixels(n) / PRINT_DPI for n in (self.target.width, height))
        with page(self.target, height, self.suffixes) as figure:
            figure.set_layout_engine("none")  # all positions are given
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            # One by one: matplotlib converts an image to floats, a whole page would be 1 GB.
            for left, top, picture in self._pictures:
                x, y = to_pixels(left) / PRINT_DPI, to_pixels(top) / PRINT_DPI
                extent = (x, x + picture.width / PRINT_DPI, y + picture.height / PRINT_DPI, y)
                pixels = np.asarray(picture.convert("RGB"))
                axes.imshow(pixels, extent=extent, interpolation="none", aspect="auto")
            axes.set(xlim=(0, width), ylim=(height, 0))  # inches from the top left corner
            for left, top, wide, tall, look in self._frames:
                axes.add_patch(Rectangle((left, top), wide, tall, **look))
            for left, baseline, text, look in self._texts:
                axes.text(left, baseline, text, zorder=4, **look)
        return height


def to_pixels(length: float) -> int:
    return round(length * PRINT_DPI)


def fit(text: str, points: float, room: float, weight: str = "normal") -> str:
    """Shorten a text with an ellipsis to a width in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points, weight=weight)

    def is_wide(text: str) -> bool:
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
        return bool(width / 72 > room)

    text = text[:_LONGEST]
    if not is_wide(text):
        return text
    n = bisect.bisect_left(range(len(text)), True, key=lambda n: is_wide(text[: n + 1] + "…"))
    return text[:n] + "…"
