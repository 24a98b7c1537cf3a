"""The claims of the paper as data: each claim is a number of comparisons of cells.

A claim is an entry of a file in `claims/`. A comparison names two cells by their keys. It holds if
the first is more than `above` points (default 0) over the second, or if the two differ by at most
`within` points; `each` expands a pattern such as {e} over lists of names. `need` states how many
comparisons must hold: all, most (more than half), or any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from typing import Any, Literal

from pa.report.cells import Cell, cell, column_title, encoders, read_toml

Need = Literal["all", "most", "any"]
GROUPS = {  # files of claims, and the titles of their groups
    "object": "Recognising objects",
    "retrieval": "Retrieving parts",
    "classification": "Classifying parts",
    "segmentation": "Segmenting parts",
}


@dataclass(frozen=True)
class CellComparison:
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
        # What both cells share is printed once.
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
    comparisons: tuple[CellComparison, ...]

    @property
    def needed(self) -> int:
        """Number of comparisons that must hold."""
        # A majority is more than half: 10 of 18.
        n = len(self.comparisons)
        return {"all": n, "most": n // 2 + 1, "any": 1}[self.need]

    @property
    def where(self) -> str:
        """Section and tables: "section 4.2, Table 3"."""
        numbers = sorted({c.table for pair in self.comparisons for c in (pair.first, pair.second)})
        named = ", ".join(map(str, numbers))
        section = self.section if self.section == "Abstract" else f"section {self.section}"
        return f"{section}, Table{'s' if len(numbers) > 1 else ''} {named}"


@dataclass(frozen=True)
class KnownIssue:
    """An inconsistency of published numbers.

    `cells` are patterns of keys, `claims` the ids of claims that rest on these cells.
    """

    id: str
    title: str
    text: str
    source: str
    cells: list[str]
    claims: list[str]

    def is_about(self, cell: Cell) -> bool:
        return any(fnmatchcase(cell.key, pattern) for pattern in self.cells)


@cache
def claims() -> tuple[Claim, ...]:
    """Return every claim in the order of the files."""
    return tuple(
        Claim(
            id=entry["id"],
            group=group,
            section=entry["section"],
            says=entry["says"],
            reading=entry.get("reading", ""),
            need=entry.get("need", "all"),
            comparisons=tuple(c for pattern in entry["compare"] for c in _expand(pattern)),
        )
        for group in GROUPS
        for entry in read_toml("claims", f"{group}.toml")["claims"]
    )


def _expand(pattern: Mapping[str, Any]) -> Iterator[CellComparison]:
    each = pattern.get("each", {})
    # One comparison for each combination of the names: {e} over encoders, {p} over probes.
    for values in product(*each.values()):
        names = dict(zip(each, values, strict=True))
        yield CellComparison(
            cell(pattern["first"].format(**names)),
            cell(pattern["second"].format(**names)),
            above=float(pattern.get("above", 0)),
            within=pattern.get("within"),
        )


@cache
def known_issues() -> tuple[KnownIssue, ...]:
    """Return every known issue."""
    return tuple(KnownIssue(**entry) for entry in read_toml("known_issues.toml")["known_issues"])
