"""The tables of a report with their footnotes, as every renderer shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pa.report.cells import Cell, Table
from pa.report.claims import KnownIssue
from pa.report.protocol import Protocol
from pa.report.report import Report, known_issues_of
from pa.report.selection import SelectedResult

Scope = Literal["table", "row", "column", "cell"]


@dataclass(frozen=True, eq=False)
class TableView:
    """One table under one protocol; without a protocol it holds the paper's numbers alone.

    `selected` holds our results by the key of their cell, `marks` the deviations of all of them,
    `remarks` what to know of the paper's numbers.
    """

    table: Table
    protocol: Protocol | None
    selected: Mapping[str, SelectedResult]
    marks: Marks
    remarks: list[Remark]

    def numbers(self, scope: Scope, name: str) -> list[str]:
        """Return the numbers of the remarks on a row, a column or a cell."""
        return [str(r.number) for r in self.remarks if r.scope == scope and name in r.at]


def views_of(report: Report, table: Table) -> list[TableView]:
    """Return a view for each protocol with a result, or one with the paper's numbers."""
    about = remarks(table)
    views = []
    for protocol in report.protocols(table):
        selected = {item.cell.key: item for item in report.in_table(table, protocol)}
        views.append(TableView(table, protocol, selected, Marks.of(selected.values()), about))
    return views or [TableView(table, None, {}, Marks(()), about)]


@dataclass(frozen=True)
class Marks:
    """The deviations of our numbers in one table, each with a letter, in order of appearance."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, selected: Iterable[SelectedResult]) -> Marks:
        return cls(tuple(dict.fromkeys(mark.text for item in selected for mark in item.ours.marks)))

    def letters(self, selected: SelectedResult) -> list[str]:
        """Return the letters of the deviations of one number."""
        return [letter(self.texts.index(mark.text)) for mark in selected.ours.marks]

    def listed(self) -> list[tuple[str, str]]:
        """Return each letter with its text."""
        return [(letter(index), text) for index, text in enumerate(self.texts)]


def letter(index: int) -> str:
    """Return a … z, aa, ab … as the columns of a spreadsheet.

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
    """A numbered known issue of a table.

    `scope` is the whole `table` (without a mark), the heads of rows or columns in `at` (names of
    encoders or columns), or the cells in `at` (keys).
    """

    number: int
    issue: KnownIssue
    scope: Scope
    at: frozenset[str]


def remarks(table: Table) -> list[Remark]:
    """Return the known issues of a table, numbered from 1."""
    return [
        Remark(number, issue, *_placed(table, cells))
        for number, (issue, cells) in enumerate(known_issues_of(table), start=1)
    ]


def _placed(table: Table, about: tuple[Cell, ...]) -> tuple[Scope, frozenset[str]]:
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
