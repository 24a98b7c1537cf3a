"""Footnotes of a table: what our numbers are not, and what is odd about the paper's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pa.report.cells import Cell, Table
from pa.report.claims import KnownIssue
from pa.report.report import known_issues_of
from pa.report.selection import SelectedResult

Place = Literal["table", "row", "column", "cell"]


@dataclass(frozen=True)
class Marks:
    """The remarks on our numbers of one table, each with its letter, in order of appearance."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, selected: Iterable[SelectedResult]) -> Marks:
        return cls(tuple(dict.fromkeys(mark.text for one in selected for mark in one.ours.marks)))

    def letters(self, selected: SelectedResult) -> list[str]:
        """The letters of one number's remarks."""
        return [letter(self.texts.index(mark.text)) for mark in selected.ours.marks]

    def listed(self) -> list[tuple[str, str]]:
        return [(letter(index), text) for index, text in enumerate(self.texts)]


def letter(index: int) -> str:
    """a … z, aa, ab … as a sheet's columns.

    >>> letter(0), letter(25), letter(26)
    ('a', 'z', 'aa')
    """
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


@dataclass(frozen=True)
class Remark:
    """An issue of a table: its number, and where its mark stands.

    `place` is the whole `table` (no mark), the heads of whole rows or columns in `at` (names of
    encoders or columns), or the cells in `at` (keys).
    """

    number: int
    issue: KnownIssue
    place: Place
    at: frozenset[str]


def remarks(table: Table) -> list[Remark]:
    """The known_issues of a table, numbered."""
    return [
        Remark(number, issue, *_placed(table, cells))
        for number, (issue, cells) in enumerate(known_issues_of(table), start=1)
    ]


def _placed(table: Table, about: tuple[Cell, ...]) -> tuple[Place, frozenset[str]]:
    chosen = {cell.key for cell in about}
    if len(chosen) == len(table.cells):
        return "table", frozenset()
    rows = {cell.encoder for cell in about}
    if {cell.key for cell in table.cells if cell.encoder in rows} == chosen:
        return "row", frozenset(rows)
    columns = {cell.column for cell in about}
    if {cell.key for cell in table.cells if cell.column in columns} == chosen:
        return "column", frozenset(columns)
    return "cell", frozenset(chosen)


def numbers_at(found: Iterable[Remark], place: Place, name: str) -> list[str]:
    """The numbers of the remarks that stand at a row's head, a column's head or a cell."""
    return [str(one.number) for one in found if one.place == place and name in one.at]
