"""What the figures of scores share: size, fonts, colours, and how they are written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pa
from pa.data.files import replacing
from pa.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
DPI = 200
WIDTH = 6.5  # inches: a page without its margins

# Okabe and Ito: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
GREY = "#8a8a8a"

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "pa",
}


@dataclass(frozen=True)
class About:
    """What a figure's file says of itself: a title, a caption, and where it is from as one text."""

    title: str
    description: str
    source: str

    def metadata(self, suffix: str) -> dict[str, Any]:
        """By the names that a format has for them."""
        made_with = f"pa {pa.__version__}"
        names = {"pdf": ("Subject", "Keywords", "Creator")}.get(
            suffix, ("Description", "Source", "Software" if suffix == "png" else "Creator")
        )
        values = (self.description, self.source, made_with)
        return {"Title": self.title, **dict(zip(names, values, strict=True))}


def check_suffix(path: Path) -> Path:
    """Raise `UsageError` for a file that is no PNG, PDF or SVG: before the work, not after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: a figure is written as {', '.join(SUFFIXES)}; found "
            f"{path.suffix or 'no suffix'}."
        )
    return path


@contextlib.contextmanager
def drawing(path: Path, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `columns` panels and this height in inches, written when the block ends."""
    with page([path], (WIDTH, height)) as figure:
        figure.set_layout_engine("constrained")
        yield figure, [figure.add_subplot(1, columns, place + 1) for place in range(columns)]


@contextlib.contextmanager
def page(
    paths: Sequence[Path], size: tuple[float, float], about: About | None = None, dpi: int = DPI
) -> Iterator[Figure]:
    """An empty figure of this width and height in inches, written to every path at the end.

    Equal figures give equal files: no date and no random ids inside.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    suffixes = [check_suffix(path).suffix.lower()[1:] for path in paths]
    settings: Any = _STYLE
    with rc_context(settings):
        figure = Figure(figsize=size, dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        written = [_written(figure, suffix, about, dpi) for suffix in suffixes]
    for path, drawn in zip(paths, written, strict=True):
        with replacing(path) as partial:
            partial.write_bytes(drawn.getbuffer())


def _written(figure: Figure, suffix: str, about: About | None, dpi: int) -> io.BytesIO:
    # Through memory: on a full disk matplotlib's PDF writer hides the cause.
    drawn = io.BytesIO()
    undated: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix, {})
    told = {} if about is None else about.metadata(suffix)
    figure.savefig(drawn, format=suffix, dpi=dpi, metadata={**undated, **told} or None)
    return drawn
