"""Neighbours of queries by several encoders (Figures 2, 7, 8) or representations (Figure 4).

One section per query: on the left its image with a red box around the patch, on the right a panel
for each answer, a grid of its neighbours by rank, row by row. All lengths are in inches.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pa.data.crops import Crops
from pa.data.datasets.imagenet import readable_label
from pa.data.store.find import protocol
from pa.data.store.reader import Store
from pa.evaluate.result_parts import StoreReference
from pa.figures.names import listed, title_of
from pa.figures.neighbours import RED, edged, query_picture
from pa.figures.record import FigureOutput, FigureRecord, WrittenFigure
from pa.figures.style import PRINT_DPI, Metadata, page
from pa.index.search import SearchResult
from pa.progress import Progress
from pa.report.deviations import model_name

PER_LINE = 12  # squares in one line of panels
QUERY_SHARE = 0.18  # of the width, for the query's image
PAPER_MODEL = "ViT-B/16, 768 wide"  # of all encoders of the paper
TALLEST = 9.5  # height of the text on a page
_GAP, _GUTTER, _TITLE, _BETWEEN = 0.02, 0.14, 0.19, 0.22  # squares, panels, titles, sections
_LINE, _POINTS = 1.5, 8.5  # width of the frame and size of the font, in points


@dataclass(frozen=True, eq=False)
class Panel:
    """One answer: its title, the neighbours, and the pictures of their store."""

    title: str
    result: SearchResult
    crops: Crops


@dataclass(frozen=True)
class Layout:
    """Lengths of a section of `n_panels` panels of k squares each, `across` in a line."""

    width: float
    n_panels: int
    across: int
    k: int

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
        """Height of a line of panels with its titles."""
        return _TITLE + self.rows * (self.cell + _GAP)

    @property
    def height(self) -> float:
        """Height of the section."""
        lines = math.ceil(self.n_panels / self.across)
        return max(lines * self.line, self.query + _TITLE)

    @property
    def shows_patch(self) -> bool:
        """Whether the enlarged patch fits below the query's image."""
        return self.height >= 2 * (self.query + _TITLE)

    def corner(self, panel: int) -> tuple[float, float]:
        """Return left and top of a panel's first square, from the section's corner."""
        line, column = divmod(panel, self.across)
        left = self.query + _GUTTER + column * (self.panel + _GUTTER)
        return left, line * self.line + _TITLE

    def square(self, index: int) -> tuple[float, float]:
        """Return left and top of a square in its panel."""
        row, column = divmod(index, self.columns)
        return column * (self.cell + _GAP), row * (self.cell + _GAP)


def write_patches(
    kind: str,
    stores: Sequence[Store],
    sections: Sequence[Sequence[Panel]],
    *,
    title: str,
    sentence: str,
    note: str,
    options: Sequence[str],
    across: int,
    exclude_same_image: bool,
    output: FigureOutput,
    figures: Path,
    progress: Progress,
) -> WrittenFigure:
    """Draw the panels of each query, and write the figure with its caption and provenance.

    The caption begins with `sentence`; `note` follows the list of queries. `options` are those of
    the command that draws the figure again.
    """
    k = len(sections[0][0].result.neighbours)
    models = {
        store.encoder: model_name(store.spec.encoder.get("architecture", {})) for store in stores
    }
    without = "the regions of its own image" if exclude_same_image else "the query itself"
    gallery = _describe_gallery(stores[0], without)
    caption = [sentence, gallery, *_describe_answers(sections, note, models)]
    record = FigureRecord(
        kind=kind,
        name=f"{stores[0].spec.dataset}-{stores[0].view}",
        title=title,
        caption=" ".join(caption),
        command=shlex.join(["pa", "figure", kind, *options]),
        stores=[asdict(StoreReference.of(store)) for store in stores],
        protocol={
            "similarity": "cosine",
            "query": "its whole image left out" if exclude_same_image else "left out",
            "k": k,
        },
        details={
            "models": models,
            "answers": [[panel.result.to_json() for panel in section] for section in sections],
        },
    )
    paths = record.paths(output, figures)
    height = draw(sections, paths, width=output.width, across=across, metadata=record.metadata)
    if height > TALLEST:
        progress.note(
            f"the figure is {height:.1f} inches tall, more than a page: select fewer queries or "
            f"encoders, or put panels next to each other with --across."
        )
    return record.write(paths)


def _describe_gallery(store: Store, without: str) -> str:
    spec, cut_by = store.spec, protocol(store)
    n_images = spec.rows.get("n_images", store.rows["image"].n_unique())
    regions = f"{spec.rows['n']:,} regions of {n_images:,} images of {spec.dataset}/{spec.split}"
    view = f"view {store.view}" + (f", protocol {cut_by}" if cut_by else "")
    return (
        f"The patch in the red box is the query; next to it are the nearest of {regions} ({view}) "
        f"by cosine, in the order of their rank, row by row, without {without}."
    )


def _describe_answers(
    sections: Sequence[Sequence[Panel]], note: str, models: dict[str, str]
) -> Iterator[str]:
    """Yield sentences on the queries, a note, and deviations from the paper's search."""
    for number, section in enumerate(sections):
        query = section[0].result.query
        letter = f"{_letter(number)} " if len(sections) > 1 else ""
        label = f", {readable_label(query.label)}" if query.label else ""
        yield f"{letter}{Path(query.path or '').name}{label}, row {query.row}."
    if note:
        yield note
    if approximate := {panel.result.quality for panel in sections[0]} - {"exact"}:
        yield f"Approximate search: {listed(sorted(approximate))}."
    if set(models.values()) - {PAPER_MODEL}:
        names = "; ".join(f"{title_of(encoder)}: {model}" for encoder, model in models.items())
        yield f"Models other than the paper's: {names}."


def _letter(number: int) -> str:
    return f"({chr(ord('a') + number % 26)})"


def draw(
    sections: Sequence[Sequence[Panel]],
    paths: Sequence[Path],
    *,
    width: float,
    across: int = 1,
    metadata: Metadata | None = None,
) -> float:
    """Draw the panels of each query to every path, and return the height in inches.

    All panels of a section answer the same query. Raises `MissingError` if an image of the dataset
    is missing.
    """
    k = max(len(panel.result.neighbours) for section in sections for panel in section)
    layouts = [Layout(width, len(section), across, k) for section in sections]
    height = sum(layout.height + _BETWEEN for layout in layouts) - _BETWEEN
    paper = _Paper(width, height)
    top = 0.0
    for number, (section, layout) in enumerate(zip(sections, layouts, strict=True)):
        _query(paper, section[0], layout, top + _TITLE)
        paper.text(0, top + _TITLE, _letter(number) if len(sections) > 1 else "")
        side = paper.pixels(layout.cell)  # photographs have 300 dpi
        for i, panel in enumerate(section):
            left, upper = layout.corner(i)
            paper.text(left, top + upper, panel.title)
            for rank, neighbour in enumerate(panel.result.neighbours):
                x, y = layout.square(rank)
                paper.paste(panel.crops.region(neighbour.row, side), left + x, top + upper + y)
        top += layout.height + _BETWEEN
    paper.write(paths, metadata)
    return height


def _query(paper: _Paper, panel: Panel, layout: Layout, top: float) -> None:
    canvas, box = query_picture(panel.result.query, panel.crops)
    scale = layout.query / max(canvas.size)
    size = tuple(max(1, paper.pixels(length * scale)) for length in canvas.size)
    picture = canvas.convert("RGB")
    paper.paste(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS), 0, top)
    limits = (canvas.width, canvas.height, canvas.width, canvas.height)  # a box may exceed it
    inside = [scale * min(max(v, 0), limit) for v, limit in zip(box, limits, strict=True)]
    paper.frame(inside[0], top + inside[1], inside[2] - inside[0], inside[3] - inside[1])
    if layout.shows_patch:
        below = top + canvas.height * scale + _TITLE  # top of the enlarged patch
        x0, y0, x1, y1 = (round(value) for value in box)
        side = paper.pixels(layout.query)
        patch = picture.crop((x0, y0, x1, y1)).resize((side, side), Image.Resampling.LANCZOS)
        paper.paste(patch, 0, below)
        paper.frame(0, below, layout.query, layout.query)


class _Paper:
    """One page: photographs in one pixel image, text and frames as vectors above it."""

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
        """Write text slightly above `bottom`."""
        self._texts.append((left, bottom - 0.05, text))

    def frame(self, left: float, top: float, width: float, height: float) -> None:
        """Draw a red frame inside a box, so that it is complete at the border of an image."""
        half = _LINE / 72 / 2  # points to inches
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
            axes.set(xlim=(0, width), ylim=(height, 0))  # inches from the top left corner
            for left, bottom, text in self._texts:
                axes.text(left, bottom, text, fontsize=_POINTS, va="baseline")
            for left, top, wide, tall in self._frames:
                frame = Rectangle((left, top), wide, tall, fill=False, ec=RED, lw=_LINE)
                frame.set_joinstyle("miter")
                axes.add_patch(frame)
