"""The figures of a workspace, and the figures of the paper that they reproduce.

The pictures of the paper are under copyright; a sentence describes each.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pa.report.cells import read_toml

# Suffixes that a browser shows in an <img>, best first, with their media types.
SHOWN = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
PRINTED = (".pdf", ".png", ".jpg")  # suffixes that pdflatex includes, best first
ALSO = (".pdf",)  # printed figures, which a browser does not show in an <img>
LARGEST = 8_000_000  # bytes of one embedded file: base64 adds a third
BUDGET = 40_000_000  # bytes of all embedded files: a browser opens such a page quickly


@dataclass(frozen=True)
class Figure:
    """A figure of a workspace.

    `shown` is the file embedded in the page, None without one, and `why_not` the reason;
    `files` are all files of this name, `folder` is their folder below figures/. `title`, `caption`,
    `command` and `stores` are what `pa figure` recorded.
    """

    folder: str
    name: str
    shown: Path | None
    files: tuple[Path, ...]
    title: str
    caption: str = ""
    command: str = ""
    why_not: str = ""
    stores: tuple[str, ...] = ()

    @property
    def media_type(self) -> str:
        return "" if self.shown is None else SHOWN[self.shown.suffix.lower()]

    @property
    def printed(self) -> Path | None:
        """The file for LaTeX, None without one."""
        by_suffix = {path.suffix.lower(): path for path in self.files}
        return next((by_suffix[suffix] for suffix in PRINTED if suffix in by_suffix), None)

    @property
    def number(self) -> int | None:
        """Number in the paper by the name: 2 of figure-2, 6 of figure-6-pascal-paper."""
        match = re.match(r"figure-(\d+)(?:-|$)", self.name)
        return int(match[1]) if match else None


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


@cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """Return the figures of the paper that `pa` can draw, by number."""
    return tuple(
        PaperFigure(**fields) for fields in read_toml("published", "figures.toml")["figure"]
    )


def by_paper_figure(figures: Sequence[Figure]) -> list[tuple[PaperFigure | None, list[Figure]]]:
    """Pair each figure of the paper with the figures of the workspace named after it.

    The last pair, if any, has None and the figures that are named after none of the paper.
    """
    pairs: list[tuple[PaperFigure | None, list[Figure]]] = [
        (original, [item for item in figures if item.number == original.number])
        for original in paper_figures()
    ]
    known = {original.number for original in paper_figures()}
    # A number that the paper does not have, such as that of figure-99, is among the others.
    others = [item for item in figures if item.number not in known]
    return [*pairs, (None, others)] if others else pairs


def relative(path: Path, folder: Path) -> str:
    """Return a path as a file in `folder` links to it."""
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def figures_in(folder: Path) -> tuple[Figure, ...]:
    """Return every figure below a folder; files that differ only in suffix are one figure."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (*SHOWN, *ALSO) and path.is_file():
            subfolder = path.parent.relative_to(folder).as_posix()
            groups.setdefault(("" if subfolder == "." else subfolder, path.stem), []).append(path)
    figures, spent = [], 0
    for (subfolder, name), files in sorted(groups.items()):
        shown, why_not = _choose(files)
        # Figures are embedded in the order of their names until the page is full.
        if shown is not None and spent + shown.stat().st_size > BUDGET:
            shown, why_not = None, f"this page already holds {BUDGET // 1_000_000} MB of figures"
        spent += shown.stat().st_size if shown else 0
        about, stores = _record(files[0].with_name(f"{name}.json"))
        figures.append(
            Figure(
                subfolder,
                name,
                shown,
                tuple(files),
                title=about.get("title") or in_words(name),
                caption=about.get("caption", ""),
                command=about.get("command", ""),
                why_not=why_not,
                stores=stores,
            )
        )
    return tuple(figures)


def in_words(name: str) -> str:
    """Return a file name as words, without the digest at its end.

    >>> in_words("cub-parts_dino-cls-25ad2fb0fd5d")
    'cub parts dino cls'
    """
    return re.sub(r"[-_]+", " ", re.sub(r"-[0-9a-f]{12}$", "", name))


def _record(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the texts in the record of a figure, and the titles of its stores.

    A user can edit the record, so fields of another type are ignored.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    stores = fields["stores"] if isinstance(fields.get("stores"), list) else []
    titles = [store.get("title") for store in stores if isinstance(store, dict)]
    return (
        {name: text for name, text in fields.items() if isinstance(text, str)},
        tuple(dict.fromkeys(title for title in titles if isinstance(title, str))),
    )


def _choose(files: Sequence[Path]) -> tuple[Path | None, str]:
    """Return the best file for a browser, or None and the reason."""
    order = list(SHOWN)
    candidates = [path for path in files if path.suffix.lower() in SHOWN]
    candidates.sort(key=lambda path: order.index(path.suffix.lower()))
    if not candidates:
        return None, "no PNG, SVG, JPEG or WebP of it"
    sizes = [path.stat().st_size for path in candidates]
    for path, size in zip(candidates, sizes, strict=True):
        if size <= LARGEST:
            return path, ""
    return None, f"{min(sizes) / 1e6:.1f} MB, too large for this page"
