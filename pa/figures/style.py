"""Size, fonts and metadata of all figures, and how their files are written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.data.files import replacing
from pa.data.version import __version__
from pa.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
SHEET_SUFFIXES = (".png", ".jpg", ".pdf")  # of contact sheets, which are mostly photographs
PRINT_DPI = 300
PAGE_WIDTH = 6.5  # inches: width of the text on a page
TALLEST = 9.5  # inches: height of the text on a page
INK, GREY = "#1a1a1a", "#6b6b6b"  # of text, and of what is less important

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    # TrueType: publishers reject Type 3 fonts.
    "pdf.fonttype": 42,
    # Fixed ids, so that equal figures give equal files.
    "svg.hashsalt": "pa",
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
        software = f"pa {__version__}"
        names = {"pdf": ("Subject", "Keywords", "Creator")}.get(
            suffix, ("Description", "Source", "Software" if suffix == "png" else "Creator")
        )
        values = (self.description, self.source, software)
        return {"Title": self.title, **dict(zip(names, values, strict=True))}


@dataclass(frozen=True)
class Target:
    """The files of a figure, its width in inches, and what is stored in the files."""

    paths: Sequence[Path]
    width: float = PAGE_WIDTH
    metadata: Metadata | None = None


def check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """Raise `UsageError` early unless the path ends in one of the suffixes."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"{path}: expected a file ending in {', '.join(suffixes)}; found "
            f"{path.suffix or 'no suffix'}."
        )
    return path


@contextlib.contextmanager
def page(target: Target, height: float, suffixes: Sequence[str] = SUFFIXES) -> Iterator[Figure]:
    """Yield an empty figure `height` inches tall, and write its files when the block ends.

    Its panels are arranged so that labels do not overlap. Equal figures give equal files: they
    contain no date and no random ids.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    formats = [check_suffix(path, suffixes).suffix.lower()[1:] for path in target.paths]
    with rc_context(_STYLE):
        size = (target.width, height)
        figure = Figure(figsize=size, dpi=PRINT_DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # In memory first: matplotlib hides the error of a full disk.
        buffers = [io.BytesIO() for _ in formats]
        for kind, buffer in zip(formats, buffers, strict=True):
            fields: dict[str, Any] = dict(_UNDATED.get(kind, {}))
            # Title, caption and sources travel with the file, whatever its name becomes.
            fields |= {} if target.metadata is None else target.metadata.fields(kind)
            figure.savefig(buffer, format=kind, dpi=PRINT_DPI, metadata=fields or None)
    for path, buffer in zip(target.paths, buffers, strict=True):
        with replacing(path) as partial:
            partial.write_bytes(buffer.getbuffer())
