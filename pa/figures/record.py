"""Write a figure with its caption and provenance.

The picture itself shows no provenance. It is stored in the metadata of every file (PDF: Title,
Subject, Keywords; PNG and SVG: Title, Description, Source), in `NAME.txt` and in `NAME.json`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pa.data.files import write_json, write_text
from pa.data.store.spec import canonical_json, digest
from pa.data.version import __version__
from pa.errors import UsageError
from pa.figures.style import PAGE_WIDTH, Metadata, Target, check_suffix

SUFFIXES = (".pdf", ".png")  # written for an output path without a suffix
NARROWEST, WIDEST = 2.0, 20.0  # inches: narrower text overlaps, wider is a mistyped unit


@dataclass(frozen=True)
class FigureOutput:
    """Where to write a figure, and how wide.

    Parameters
    ----------
    out : Path, optional
        File with a suffix, or path without one, for which every suffix of `SUFFIXES` is written.
        None writes below `figures/` of the workspace.
    width : float
        Width in inches.
    name : str, optional
        File name below `figures/`. None derives one from the content.
    """

    out: Path | None = None
    width: float = PAGE_WIDTH
    name: str | None = None

    def __post_init__(self) -> None:
        if not NARROWEST <= self.width <= WIDEST:
            raise UsageError(
                f"a figure is {NARROWEST:g} to {WIDEST:g} inches wide, not {self.width:g}: a "
                f"column is 3.25, a page {PAGE_WIDTH:g}."
            )
        if self.out is not None and self.out.suffix:
            check_suffix(self.out)
        if self.name is not None and self.out is not None:
            raise UsageError("--out and --name both name the files: give one.")
        if self.name is not None and re.fullmatch(r"\w[\w-]*", self.name, re.ASCII) is None:
            raise UsageError(
                f"--name {self.name!r}: expected letters, digits, - and _, such as figure-2; the "
                f"files are written below figures/. Use --out for any other path."
            )


@dataclass(frozen=True, eq=False)
class FigureRecord:
    """Caption and provenance of a figure.

    `kind` is the subcommand that draws it, `name` the default file name, `command` the command
    that draws it again. `stores` and `results` (each as JSON) are its sources; `protocol` and
    `details` are what a reader needs to judge it.
    """

    kind: str
    name: str
    title: str
    caption: str
    command: str
    protocol: dict[str, Any]
    stores: Sequence[dict[str, Any]]
    results: Sequence[dict[str, Any]] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def target(self, output: FigureOutput, figures: Path) -> Target:
        """Return the pictures to draw, below the folder `figures` unless `output` says where."""
        results = [result["digest"] for result in self.results]
        source = {
            "command": self.command,
            "protocol": self.protocol,
            "stores": {store["title"]: store["fingerprint"] for store in self.stores},
            "results": results,
            "pa": __version__,
        }
        metadata = Metadata(self.title, self.caption, canonical_json(source))
        if output.out is not None and output.out.suffix:
            return Target([output.out], output.width, metadata)
        # The name depends on the sources and the command: drawn again, a figure replaces its file.
        fingerprints = [store["fingerprint"] for store in self.stores]
        key = digest([self.kind, self.title, self.command, fingerprints, results])
        stem = output.out or figures / self.kind / (output.name or f"{self.name}-{key[:12]}")
        paths = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
        return Target(paths, output.width, metadata)

    def to_json(self) -> dict[str, Any]:
        shown = {key: value for key, value in vars(self).items() if key not in ("kind", "name")}
        return {"figure": self.kind, **shown, "pa": __version__}

    def write(self, pictures: Sequence[Path]) -> WrittenFigure:
        """Write caption and provenance next to the pictures, as text and as JSON."""
        text, fields = (pictures[0].with_suffix(suffix) for suffix in (".txt", ".json"))
        lines = [self.caption, "", self.command]
        lines += [f"store {store['title']}" for store in self.stores]
        lines += [f"result {result['digest'][:12]}: {result['title']}" for result in self.results]
        write_text(text, "\n".join([*lines, f"pa {__version__}", ""]))
        write_json(fields, self.to_json())
        return WrittenFigure(self, (*pictures, text, fields))


@dataclass(frozen=True, eq=False)
class WrittenFigure:
    """A record and its files: the pictures, then caption and provenance."""

    record: FigureRecord
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.record.to_json(), "files": [str(path) for path in self.files]}
