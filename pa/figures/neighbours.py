"""Queries and their neighbours, by several encoders or representations (Figures 2, 4, 7 and 8).

One section per query: on the left its image with a red frame around the region, on the right a
panel for each answer, a grid of its neighbours by rank, row by row. All lengths are in inches.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from pa.data.crops import Crops
from pa.data.datasets.imagenet import readable_label
from pa.data.schema import Box
from pa.data.store.find import protocol
from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.evaluate.neighbours import Shares
from pa.evaluate.result_parts import StoreReference
from pa.figures.colours import OKABE_ITO, as_hex
from pa.figures.names import listed, representation_title, title_of, title_of_store
from pa.figures.paper import MARGIN, RED, Paper, to_pixels
from pa.figures.record import FigureRecord
from pa.figures.style import GREY, PRINT_DPI, Target
from pa.index.search import Query, SearchResult
from pa.report.deviations import model_name

PER_LINE = 12  # squares in one line of several panels
SINGLE = 8  # most squares in a line of a single panel, which has up to three lines
QUERY_SHARE = 0.18  # of the width, for the query's image next to several panels
PAPER_MODEL = "ViT-B/16, 768 wide"  # of all encoders of the paper
SAME_PART = as_hex(OKABE_ITO[2])  # green: a neighbour that shows the part of the query
_GAP, _GUTTER, _TITLE, _BETWEEN = 0.02, 0.12, 0.18, 0.16  # squares, panels, titles, sections
_WIDE_PANEL = 4.0  # inches; titles of narrower panels are smaller
_SMALLEST_PATCH = 0.3  # side below which the enlarged region would show nothing
_LINE = 1.9 / 72  # width of a red frame with its white lines
_SMALLEST_FRAME = 0.1  # side of the red frame of a region that is smaller in the picture


@dataclass(frozen=True, eq=False)
class Panel:
    """One answer: its title, the neighbours, and the pictures of their store."""

    title: str
    result: SearchResult
    crops: Crops


def panels_of(
    answers: Sequence[tuple[Store, SearchResult]], root: Path | None, *, named: bool = True
) -> list[Panel]:
    """Return a panel for each answer, titled with the encoder and, if `named`, the representation.

    `root` is the current root folder of the images; None selects the recorded one.
    """
    crops = {store.path: Crops(store, root) for store, _ in answers}
    panels = []
    for store, result in answers:
        title = title_of_store(store.spec.to_json())
        if named:
            # A network without patches has no mean patch token: its vector keeps its short name.
            has_patches = "patch" in store.spec.encoder.get("architecture", {})
            name = result.representation
            title += f", {representation_title(name) if has_patches else name}"
        panels.append(Panel(title, result, crops[store.path]))
    return panels


# -- layout ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Lengths of a section of `n_panels` panels of k squares each, `across` in a line."""

    width: float  # without the margins of the page
    n_panels: int
    across: int
    k: int

    @property
    def columns(self) -> int:
        """Squares in a row of a panel."""
        if self.n_panels > 1:
            return max(1, min(self.k, PER_LINE // self.across))
        # Three lines as in the paper's Figures 2 and 4; fewer neighbours need fewer.
        rows = 3 if self.k > 12 else 2 if self.k > 6 else 1
        # At least four columns: a few neighbours are not enlarged to fill the page.
        return min(SINGLE, max(4, math.ceil(self.k / rows)))

    @property
    def rows(self) -> int:
        return math.ceil(self.k / self.columns)

    @property
    def query(self) -> float:
        """The side of the query's image: as high as a single panel, so that no hole is left."""
        if self.n_panels > 1:
            return self.width * QUERY_SHARE
        # Columns and query share the width; the query is as high as `high` squares and their gaps.
        high = min(self.rows, 3)
        squares = self.width - _GUTTER - (self.columns + high - 2) * _GAP
        return high * squares / (self.columns + high) + (high - 1) * _GAP

    @property
    def panel(self) -> float:
        """Width of a panel."""
        return (self.width - self.query) / self.across - _GUTTER

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

    def corner(self, panel: int, square: int) -> tuple[float, float]:
        """Return left and top of a square of a panel, from the section's corner."""
        line, column = divmod(panel, self.across)
        left = self.query + _GUTTER + column * (self.panel + _GUTTER)
        row, offset = divmod(square, self.columns)
        step = self.cell + _GAP
        return left + offset * step, line * self.line + _TITLE + row * step


# -- drawing ---------------------------------------------------------------------------------------


def draw(panels: Sequence[Panel], target: Target, across: int = 1) -> float:
    """Draw answers, those to one query as one section, and return the height in inches.

    In view `parts`, neighbours that show the part of the query have a green frame.

    Raises
    ------
    UsageError
        For another suffix or a query without a picture.
    MissingError
        If an image of the dataset is missing.
    """
    if not panels:
        raise UsageError("a figure of neighbours needs at least one search result: found none.")
    # Answers to one query are next to each other, also if several stores answered it.
    sections = [list(of) for _, of in itertools.groupby(panels, lambda panel: panel.result.query)]
    # One k for all, so that squares have one size on the page, also where a store has fewer rows.
    k = max(len(panel.result.neighbours) for panel in panels)
    paper = Paper(target)
    top = MARGIN
    for number, section in enumerate(sections):
        layout = Layout(paper.room, len(section), across, k)
        letter = f"{_letter(number)} " if len(sections) > 1 else ""
        _draw_query(paper, section[0], layout, letter, top)
        for i, panel in enumerate(section):
            _draw_panel(paper, panel, layout, i, top)
        top += layout.height + _BETWEEN
    return paper.write(top - _BETWEEN - _GAP + MARGIN)


def _draw_query(paper: Paper, panel: Panel, layout: Layout, letter: str, top: float) -> None:
    """Draw the query's image with its region in a red frame, and the region itself below it."""
    query = panel.result.query
    canvas, box = query_picture(query, panel.crops)
    name = readable_label(query.label or "") or Path(query.path or "").stem
    paper.text(MARGIN, top + _TITLE - 0.05, f"{letter}{name}", 7, room=layout.query, color=GREY)
    top += _TITLE
    scale = layout.query / max(canvas.size)
    size = (to_pixels(canvas.width * scale), to_pixels(canvas.height * scale))
    small = canvas.convert("RGB").resize(
        (max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS
    )
    paper.paste(small, MARGIN, top)
    x, y, width, height = _around(box, canvas.size, scale)
    paper.frame(MARGIN + x, top + y, width, height, RED)
    below = canvas.height * scale + _GAP
    # The region again, enlarged, where panels are higher than the image: no hole below it.
    side = min(layout.query, layout.height - _TITLE - _GAP - below)
    if side >= _SMALLEST_PATCH:
        x0, y0, x1, y1 = (round(value) for value in box)
        patch = canvas.convert("RGB").crop((x0, y0, x1, y1))
        pixels = (to_pixels(side), to_pixels(side))
        paper.paste(patch.resize(pixels, Image.Resampling.LANCZOS), MARGIN, top + below)
        paper.frame(MARGIN, top + below, side, side, RED)


def _around(box: Box, size: tuple[int, int], scale: float) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a frame around a box of an image, in inches.

    The frame is around the region, not over it, and never tiny: it would hide a small part.
    """
    sides = []
    for low, high, length in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        half = max((high - low) * scale, _SMALLEST_FRAME) / 2 + _LINE
        middle = (low + high) * scale / 2
        # A frame at the border of the image is complete.
        sides.append((max(middle - half, 0), min(middle + half, length * scale)))
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1 - x0, y1 - y0


def query_picture(query: Query, crops: Crops) -> tuple[Image.Image, Box]:
    """Return the query's image and its box. Raise `UsageError` for a query without a picture."""
    if query.row is not None:
        return crops.canvas(query.row), crops.box(query.row)
    if query.canvas is None or query.box is None:
        raise UsageError(
            "the query has no picture: give its image (canvas) and box with the vector."
        )
    return query.canvas, query.box


def _draw_panel(paper: Paper, panel: Panel, layout: Layout, number: int, top: float) -> None:
    """Draw the neighbours of one answer with their cosines, and mark those of the same part."""
    side = to_pixels(layout.cell)
    # In the other views the label is the class of the image, which a neighbour need not share.
    part = panel.result.query.label if panel.crops.view.name == "parts" else None
    for i, neighbour in enumerate(panel.result.neighbours):
        x, y = layout.corner(number, i)
        left, upper = MARGIN + x, top + y
        paper.paste(panel.crops.region(neighbour.row, side), left, upper)
        right, bottom = left + side / PRINT_DPI, upper + side / PRINT_DPI
        is_same = part is not None and neighbour.label == part
        if is_same:
            paper.frame(left, upper, right - left, bottom - upper, SAME_PART, 1.2)
        # A sign as well as a colour, for print in grey.
        mark = "✓ " if is_same else ""
        paper.badge(right, bottom, f"{mark}{neighbour.cosine:.2f}")
    left, upper = layout.corner(number, 0)
    baseline, room = top + upper - 0.05, layout.panel
    if part is not None:
        same = sum(neighbour.label == part for neighbour in panel.result.neighbours)
        # Above the panel on the right; the title on the left gets what is left of the line.
        share = f"{readable_label(part)}: {same} of {len(panel.result.neighbours)}"
        right = MARGIN + left + layout.panel
        paper.text(right, baseline, share, 7, color=GREY, ha="right")
        room -= 0.065 * len(share)  # inches of a character of 7 points
    # One size for all titles of a figure, by the width of its panels.
    points = 8 if layout.panel > _WIDE_PANEL else 6.5
    paper.text(MARGIN + left, baseline, panel.title, points, room=room, weight="bold")


def draw_hubs(shares: Sequence[Shares], root: Path | None, target: Target) -> None:
    """Draw the twenty regions of each encoder and representation that are most often neighbours."""
    paper, top = Paper(target), MARGIN
    cell = (paper.room - 9 * _GAP) / 10
    for entry in shares:
        hubs, crops = entry.hubness, Crops(entry.store, root)
        title = (
            f"{title_of_store(entry.store.spec.to_json())}, "
            f"{representation_title(entry.representation)}: skewness {hubs.skewness:.2f} (at "
            f"random {hubs.chance_skewness:.2f}), {100 * hubs.never:.0f} % never a neighbour"
        )
        paper.text(MARGIN, top + _TITLE - 0.05, title, room=paper.room)
        top += _TITLE
        counts = hubs.occurrences[hubs.top]
        shown = entry.hub_rows[:20].tolist()
        for i, row in enumerate(shown):
            left, upper = MARGIN + i % 10 * (cell + _GAP), top + i // 10 * (cell + _GAP)
            paper.paste(crops.region(row, to_pixels(cell)), left, upper)
            paper.badge(left + cell, upper + cell, f"×{counts[i]}")
        top += -(-len(shown) // 10) * (cell + _GAP)
    paper.write(top + MARGIN)


def _letter(number: int) -> str:
    return f"({chr(ord('a') + number % 26)})"


# -- caption and provenance ------------------------------------------------------------------------


def describe_answers(
    kind: str,
    answers: Sequence[Sequence[tuple[Store, SearchResult]]],
    *,
    title: str,
    sentence: str,
    note: str,
    options: Sequence[str],
    exclude_same_image: bool,
) -> FigureRecord:
    """Return caption and provenance of answers, one sequence for each query.

    The caption begins with `sentence`; `note` follows the list of queries. `options` are those of
    the command that draws the figure again.
    """
    stores = list({store.path: store for store, _ in answers[0]}.values())
    models = {
        store.encoder: model_name(store.spec.encoder.get("architecture", {})) for store in stores
    }
    spec, view, cut_by = stores[0].spec, stores[0].view, protocol(stores[0])
    n_images = spec.rows.get("n_images", stores[0].rows["image"].n_unique())
    caption = [
        sentence,
        f"The region in the red frame is the query; next to it are the nearest of "
        f"{spec.rows['n']:,} regions of {n_images:,} images of {spec.dataset}/{spec.split} (view "
        f"{view}{f', protocol {cut_by}' if cut_by else ''}) with their cosine, in the order of "
        f"their rank, row by row, without "
        f"{'the regions of its own image' if exclude_same_image else 'the query itself'}.",
    ]
    if view == "parts":
        caption.append("A green frame marks regions of the query's part.")
    for number, of_query in enumerate(answers):
        query = of_query[0][1].query
        letter = f"{_letter(number)} " if len(answers) > 1 else ""
        label = f", {readable_label(query.label)}" if query.label else ""
        caption.append(f"{letter}{Path(query.path or '').name}{label}, row {query.row}.")
    caption += [note] if note else []
    if approximate := {result.quality for _, result in answers[0]} - {"exact"}:
        caption.append(f"Approximate search: {listed(sorted(approximate))}.")
    if set(models.values()) - {PAPER_MODEL}:
        names = "; ".join(f"{title_of(encoder)}: {model}" for encoder, model in models.items())
        caption.append(f"Models other than the paper's: {names}.")
    return FigureRecord(
        kind=kind,
        name=f"{spec.dataset}-{view}",
        title=title,
        caption=" ".join(caption),
        command=shlex.join(["pa", "figure", kind, *options]),
        stores=[asdict(StoreReference.of(store)) for store in stores],
        protocol={
            "similarity": "cosine",
            "query": "its whole image left out" if exclude_same_image else "left out",
            "k": len(answers[0][0][1].neighbours),
        },
        details={
            "models": models,
            "answers": [[result.to_json() for _, result in of_query] for of_query in answers],
        },
    )
