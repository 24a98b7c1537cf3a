"""A figure as files: the pictures, and beside them its caption and where it is from.

Nothing of where a figure is from stands in the picture. It is in the metadata of every file (PDF:
Title, Subject, Keywords; PNG and SVG: Title, Description, Source), `NAME.txt` and `NAME.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pa
from pa.data.files import write_json, write_text
from pa.data.store.spec import canonical_json, digest
from pa.errors import UsageError
from pa.figures.style import WIDTH, About, check_suffix

SUFFIXES = (".pdf", ".png")  # of a figure whose file has no suffix
NARROWEST, WIDEST = 2.0, 20.0  # inches
DPI = 300


@dataclass(frozen=True)
class Place:
    """Where a figure goes: `out` is a file of one kind, or a name that every kind is written for;
    None = below figures/ of the workspace, as `name` or else by what is shown. `width` in inches.
    """

    out: Path | None = None
    width: float = WIDTH
    name: str | None = None

    def __post_init__(self) -> None:
        if not NARROWEST <= self.width <= WIDEST:
            raise UsageError(
                f"a figure is {NARROWEST:g} to {WIDEST:g} inches wide, not {self.width:g}: a "
                f"column is 3.25, a page {WIDTH:g}."
            )
        if self.out is not None and self.out.suffix:
            check_suffix(self.out)
        if self.name is not None and self.out is not None:
            raise UsageError("--out and --name both say what the files are called: give one.")
        if self.name is not None and re.fullmatch(r"\w[\w-]*", self.name, re.ASCII) is None:
            raise UsageError(
                f"--name {self.name!r}: expected letters, digits, - and _, such as figure-2; the "
                f"files lie below figures/. Give any other place with --out."
            )


@dataclass(frozen=True, eq=False)
class Plate:
    """A figure with all it says of itself.

    `kind` is the word of its command, `name` what its file is called unless `place` says so;
    `command` makes it again; `stores` and `results` (each as JSON) are what it was drawn from;
    `protocol` and `details` are whatever a reader needs to judge it.
    """

    kind: str
    name: str
    title: str
    caption: str
    command: str
    stores: Sequence[dict[str, Any]]
    protocol: dict[str, Any]
    results: Sequence[dict[str, Any]] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def paths(self, place: Place, figures: Path) -> tuple[Path, ...]:
        """The pictures: those asked for, or PDF and PNG."""
        if place.out is not None and place.out.suffix:
            return (place.out,)
        name = place.name or f"{self.name}-{self.digest[:12]}"
        stem = place.out or figures / self.kind / name
        return tuple(stem.with_name(stem.name + suffix) for suffix in SUFFIXES)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what determines the figure, the numbers behind it left out."""
        fingerprints = [store["fingerprint"] for store in self.stores]
        results = [result["digest"] for result in self.results]
        return digest([self.kind, self.title, self.command, fingerprints, results])

    @property
    def about(self) -> About:
        """What goes into the metadata of the pictures."""
        return About(self.title, self.caption, canonical_json(self._origin()))

    def _origin(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "protocol": self.protocol,
            "stores": {store["title"]: store["fingerprint"] for store in self.stores},
            "results": [result["digest"] for result in self.results],
            "pa": pa.__version__,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "figure": self.kind,
            "title": self.title,
            "caption": self.caption,
            "command": self.command,
            "protocol": self.protocol,
            "stores": list(self.stores),
            "results": list(self.results),
            "details": self.details,
            "pa": pa.__version__,
        }

    def text(self) -> str:
        """The caption, then where the figure is from."""
        lines = [self.caption, "", self.command]
        lines += [f"store {store['title']}" for store in self.stores]
        lines += [f"result {result['digest'][:12]}: {result['title']}" for result in self.results]
        return "\n".join([*lines, f"pa {pa.__version__}", ""])


@dataclass(frozen=True, eq=False)
class Made:
    """A figure that was written: its pictures, and caption and origin beside them."""

    plate: Plate
    pictures: tuple[Path, ...]
    beside: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.plate.to_json(),
            "files": [str(path) for path in self.pictures + self.beside],
        }


def finish(plate: Plate, pictures: Sequence[Path]) -> Made:
    """Write caption and origin beside the pictures."""
    text, fields = (pictures[0].with_suffix(suffix) for suffix in (".txt", ".json"))
    write_text(text, plate.text())
    write_json(fields, json.loads(json.dumps(plate.to_json())))
    return Made(plate, tuple(pictures), (text, fields))
