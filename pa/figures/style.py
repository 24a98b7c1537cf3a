"""Size, fonts and colours shared by all figures, and how figures are written."""

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
DPI, PRINT_DPI = 200, 300  # for a first look; for figures of a paper
PAGE_WIDTH = 6.5  # inches: width of the text on a page

# Okabe and Ito (2008): distinguishable with colour-blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
GREY = "#8a8a8a"

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers reject Type 3 fonts
    "svg.hashsalt": "pa",  # fixed ids, so that equal figures give equal files
}
_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}  # equal figures, equal files


@dataclass(frozen=True)
class Metadata:
    """Title, caption and provenance stored in a picture file."""

    title: str
    description: str
    source: str

    def fields(self, suffix: str) -> dict[str, Any]:
        """Return the metadata by the field names of a file format."""
        software = f"pa {pa.__version__}"
        names = {"pdf": ("Subject", "Keywords", "Creator")}.get(
            suffix, ("Description", "Source", "Software" if suffix == "png" else "Creator")
        )
        values = (self.description, self.source, software)
        return {"Title": self.title, **dict(zip(names, values, strict=True))}


def check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """Raise `UsageError` early unless the path ends in one of the suffixes."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"{path}: expected a file ending in {', '.join(suffixes)}; found "
            f"{path.suffix or 'no suffix'}."
        )
    return path


@contextlib.contextmanager
def drawing(path: Path, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a figure of page width with `columns` panels, and write it when the block ends."""
    with page([path], (PAGE_WIDTH, height), dpi=DPI) as figure:
        figure.set_layout_engine("constrained")
        yield figure, [figure.add_subplot(1, columns, column + 1) for column in range(columns)]


@contextlib.contextmanager
def page(
    paths: Sequence[Path],
    size: tuple[float, float],
    metadata: Metadata | None = None,
    dpi: int = PRINT_DPI,
) -> Iterator[Figure]:
    """Yield an empty figure of a size in inches, and write it to every path when the block ends.

    Equal figures give equal files: they contain no date and no random ids.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    suffixes = [check_suffix(path).suffix.lower()[1:] for path in paths]
    with rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        buffers = [io.BytesIO() for _ in paths]  # matplotlib hides the error of a full disk
        for suffix, buffer in zip(suffixes, buffers, strict=True):
            fields: dict[str, Any] = dict(_UNDATED.get(suffix, {}))
            fields |= {} if metadata is None else metadata.fields(suffix)
            figure.savefig(buffer, format=suffix, dpi=dpi, metadata=fields or None)
    for path, buffer in zip(paths, buffers, strict=True):
        with replacing(path) as partial:
            partial.write_bytes(buffer.getbuffer())
