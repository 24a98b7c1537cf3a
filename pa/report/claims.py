"""The claims of the paper as data: each claim is a number of comparisons of cells.

A claim is an entry of a file in `claims/`. A comparison names two cells by their keys. It holds if
the first is more than `above` points (default 0) over the second, or if the two differ by at most
`within` points; `each` expands a pattern such as {e} over lists of names. `need` states how many
comparisons must hold: all, most (more than half), or any.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from itertools import product
from typing import Any, Literal

from pa.report.cells import Cell, cell, column_title, encoders

Need = Literal["all", "most", "any"]
GROUPS = {  # files of claims, and the titles of their groups
    "object": "Recognising objects",
    "retrieval": "Retrieving parts",
    "classification": "Classifying parts",
    "segmentation": "Segmenting parts",
}


@dataclass(frozen=True)
class Comparison:
    """Two cells, and the claimed difference first − second in points."""

    first: Cell
    second: Cell
    above: float
    within: float | None = None

    @property
    def text(self) -> str:
        """Return a formula: "dino cub/encoded − deit cub/encoded > 0"."""
        names = f"{self.first.encoder} {self.first.column} − {self.second.encoder} "
        names += self.second.column
        if self.within is not None:
            return f"|{names}| ≤ {self.within:g}"
        return f"{names} > {self.above:g}"

    @property
    def words(self) -> str:
        """Return a formula with printed names: "MoCo v3 − DeiT, CUB-200-2011 Encoded > 0"."""
        titles = [encoders()[item.encoder].title for item in (self.first, self.second)]
        columns = [column_title(item.column) for item in (self.first, self.second)]
        if columns[0] == columns[1]:
            formula = f"{titles[0]} − {titles[1]}, {columns[0]}"
        elif titles[0] == titles[1]:
            formula = f"{titles[0]}, {columns[0]} − {columns[1]}"
        else:
            formula = f"{titles[0]}, {columns[0]} − {titles[1]}, {columns[1]}"
        if self.within is not None:
            return f"{formula}: within {self.within:g}"
        return f"{formula} > {self.above:g}".replace("> -", "> −")


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, reworded.

    `says` is the statement, `section` its section, `reading` how the statement is made precise
    (empty if it is), and `need` how many of the `comparisons` must hold.
    """

    id: str
    group: str
    section: str
    says: str
    reading: str
    need: Need
    comparisons: tuple[Comparison, ...]

    @property
    def needed(self) -> int:
        """Number of comparisons that must hold."""
        n = len(self.comparisons)
        return {"all": n, "most": n // 2 + 1, "any": 1}[self.need]

    @property
    def where(self) -> str:
        """Section and tables: "section 4.2, Table 3"."""
        numbers = sorted({c.table for pair in self.comparisons for c in (pair.first, pair.second)})
        named = ", ".join(map(str, numbers))
        section = self.section if self.section == "Abstract" else f"section {self.section}"
        return f"{section}, Table{'s' if len(numbers) > 1 else ''} {named}"


@cache
def claims() -> tuple[Claim, ...]:
    """Return every claim in the order of the files."""
    return tuple(
        _claim(group, entry)
        for group in GROUPS
        for entry in _toml("claims", f"{group}.toml")["claims"]
    )


@dataclass(frozen=True)
class KnownIssue:
    """An inconsistency of published numbers; `cells` are patterns of keys, `claims` ids."""

    id: str
    text: str
    source: str
    cells: tuple[str, ...]
    claims: tuple[str, ...]

    def is_about(self, cell: Cell) -> bool:
        return any(fnmatchcase(cell.key, pattern) for pattern in self.cells)


@cache
def known_issues() -> tuple[KnownIssue, ...]:
    """Return every known issue."""
    return tuple(
        KnownIssue(
            entry["id"],
            entry["text"],
            entry["source"],
            tuple(entry["cells"]),
            tuple(entry["claims"]),
        )
        for entry in _toml("known_issues.toml")["known_issues"]
    )


def _toml(*names: str) -> Mapping[str, Any]:
    file = resources.files("pa.report").joinpath(*names)
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _claim(group: str, entry: Mapping[str, Any]) -> Claim:
    return Claim(
        id=entry["id"],
        group=group,
        section=entry["section"],
        says=entry["says"],
        reading=entry.get("reading", ""),
        need=entry.get("need", "all"),
        comparisons=tuple(
            comparison for pattern in entry["compare"] for comparison in _spelled_out(pattern)
        ),
    )


def _spelled_out(pattern: Mapping[str, Any]) -> Iterator[Comparison]:
    each = pattern.get("each", {})
    for values in product(*each.values()):
        names = dict(zip(each, values, strict=True))
        yield Comparison(
            cell(pattern["first"].format(**names)),
            cell(pattern["second"].format(**names)),
            above=float(pattern.get("above", 0)),
            within=pattern.get("within"),
        )
