"""Find the figures that other commands drew in a workspace."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Suffixes that a browser shows in an <img>, best first, with their media types.
SHOWN = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
ALSO = (".pdf",)  # printed figures, which a browser does not show in an <img>
ABOUT = ("title", "caption", "command")  # fields of the record of a figure
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
        if shown is not None and spent + shown.stat().st_size > BUDGET:
            shown, why_not = None, f"this page already holds {BUDGET // 1_000_000} MB of figures"
        spent += shown.stat().st_size if shown else 0
        fields = _record(files[0].with_name(f"{name}.json"))
        about = {word: fields[word] for word in ABOUT if isinstance(fields.get(word), str)}
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
                stores=_stores(fields),
            )
        )
    return tuple(figures)


def in_words(name: str) -> str:
    """Return a file name as words, without the digest at its end.

    >>> in_words("cub-parts_dino-cls-25ad2fb0fd5d")
    'cub parts dino cls'
    """
    return re.sub(r"[-_]+", " ", re.sub(r"-[0-9a-f]{12}$", "", name))


def _record(path: Path) -> dict[str, Any]:
    """Return the record of a figure; empty if it cannot be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _stores(fields: dict[str, Any]) -> tuple[str, ...]:
    """Return the titles of the stores that a figure was drawn from."""
    stores = fields.get("stores")
    listed = stores if isinstance(stores, list) else []
    titles = [store.get("title") for store in listed if isinstance(store, dict)]
    return tuple(dict.fromkeys(title for title in titles if isinstance(title, str)))


def _choose(files: Sequence[Path]) -> tuple[Path | None, str]:
    """Return the best file for a browser, or None and the reason."""
    candidates = sorted(
        (f for f in files if f.suffix.lower() in SHOWN),
        key=lambda f: list(SHOWN).index(f.suffix.lower()),
    )
    if not candidates:
        return None, "no PNG, SVG, JPEG or WebP of it"
    sizes = [f.stat().st_size for f in candidates]
    fitting = [f for f, size in zip(candidates, sizes, strict=True) if size <= LARGEST]
    if fitting:
        return fitting[0], ""
    return None, f"{min(sizes) / 1e6:.1f} MB, too large for this page"
