"""What the figures of scores share: size, fonts, colours, and how they are written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """A figure of `columns` panels and this height in inches, written when the block ends.

    Equal figures give equal files: no date and no random ids inside.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    suffix = check_suffix(path).suffix.lower()[1:]
    settings: Any = _STYLE
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
        yield figure, panels
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
        # Through memory: on a full disk matplotlib's PDF writer hides the cause.
        drawn = io.BytesIO()
        figure.savefig(drawn, format=suffix, dpi=DPI, metadata=metadata)
    with replacing(path) as partial:
        partial.write_bytes(drawn.getbuffer())
