"""The paper's figures and ours of each, as Markdown and LaTeX.

The pictures of the paper are under copyright; a sentence describes each.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pa.report.figures import Figure
from pa.report.latex import escape as tex
from pa.report.markdown import code, escape

PRINTED = (".pdf", ".png", ".jpg")  # what pdflatex takes, best first


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: its place, what it shows, and the command that draws ours."""

    number: int
    where: str
    title: str
    shows: str
    command: str

    @property
    def heading(self) -> str:
        return f"Figure {self.number}: {self.title}"


@functools.cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """Return the figures of the paper that `pa` can draw, by number."""
    file = resources.files("pa.report") / "published" / "figures.toml"
    text = file.read_text(encoding="utf-8")
    return tuple(PaperFigure(**fields) for fields in tomllib.loads(text)["figure"])


def number_of(figure: Figure) -> int | None:
    """Return the number of the figure in a name: 2 of figure-2, 6 of figure-6-pascal-paper."""
    match = re.match(r"figure-(\d+)(?:-|$)", figure.name)
    return int(match[1]) if match else None


def by_paper_figure(figures: Sequence[Figure]) -> list[tuple[PaperFigure, list[Figure]]]:
    """Pair each figure of the paper with the figures of the workspace named after it."""
    return [
        (original, [item for item in figures if number_of(item) == original.number])
        for original in paper_figures()
    ]


def others(figures: Sequence[Figure]) -> list[Figure]:
    """Return figures that are named after none of the paper."""
    known = {original.number for original in paper_figures()}
    return [item for item in figures if number_of(item) not in known]


def markdown_figures(figures: Sequence[Figure], folder: Path) -> Iterator[str]:
    """Yield paragraphs of a Markdown page in `folder`, with linked pictures."""
    for original, ours in by_paper_figure(figures):
        yield f"### {escape(original.heading)}"
        yield f"The paper ({escape(original.where)}): {escape(original.shows)}."
        if not ours:
            yield f"Ours is not drawn: {code(original.command)}"
        for item in ours:
            yield from _linked(item, folder)
    if more := others(figures):
        yield "### Other figures"
        for item in more:
            yield from _linked(item, folder)


def _linked(figure: Figure, folder: Path) -> Iterator[str]:
    if figure.shown is None:
        yield f"{escape(figure.title)}: not shown, {escape(figure.why_not)}."
    else:
        yield f"![{escape(figure.title)}](<{_relative(figure.shown, folder)}>)"
    yield " ".join(filter(None, [f"**{escape(figure.title)}.**", escape(figure.caption)]))
    stores = [code(store) for store in figure.stores]
    if figure.command:
        yield " ".join([code(figure.command), *(["from", ", ".join(stores)] if stores else [])])


def latex_figures(figures: Sequence[Figure], folder: Path, version: str) -> str:
    """Return the floats of a LaTeX file in `folder`, those of the paper first."""
    lines = [
        f"% Figures of the workspace; written by pa {version}.",
        "% Needs \\usepackage{graphicx}; paths are relative to the folder of this file.",
        "",
    ]
    ours = [(original, item) for original, actual in by_paper_figure(figures) for item in actual]
    for original, item in (*ours, *((None, item) for item in others(figures))):
        files = {path.suffix.lower(): path for path in item.files}
        printed = next((files[suffix] for suffix in PRINTED if suffix in files), None)
        if printed is None:
            continue
        of = f"The paper's Figure {original.number}, ours: " if original else ""
        stores = f"Stores: {', '.join(item.stores)}." if item.stores else ""
        caption = " ".join(filter(None, [f"{of}{item.title}.", item.caption, stores]))
        label = re.sub(r"[^A-Za-z0-9]+", "-", f"{item.folder}-{item.name}").strip("-")
        lines += [
            r"\begin{figure}[p]",
            r"\centering",
            rf"\includegraphics[width=\linewidth]{{\detokenize{{{_relative(printed, folder)}}}}}",
            rf"\caption{{{tex(caption)}}}",
            rf"\label{{figure-{label}}}",
            r"\end{figure}",
            "",
        ]
    return "\n".join(lines)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
