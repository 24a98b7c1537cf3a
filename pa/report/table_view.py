"""The tables of a report as every renderer shows them: rows, cells and footnotes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, groupby, product
from string import ascii_lowercase
from typing import Literal

from pa.report.cells import Cell, Table, dataset_titles, encoders, family_title, kind_title
from pa.report.claims import KnownIssue, known_issues
from pa.report.protocol import Protocol
from pa.report.report import Report
from pa.report.selection import SelectedResult

Scope = Literal["table", "row", "column", "cell"]


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


@dataclass(frozen=True)
class ShownCell:
    """A printed number with ours, None without one.

    `numbers` are those of the remarks on the printed number, `letters` those of the deviations of
    our number from the paper's setting.
    """

    cell: Cell
    ours: SelectedResult | None
    numbers: list[str]
    letters: list[str]


@dataclass(frozen=True)
class Head:
    """The head of a row or a column, and the numbers of the remarks on it."""

    title: str
    numbers: list[str]


@dataclass(frozen=True)
class Row(Head):
    """The row of an encoder, with None where the paper prints a dash."""

    cells: list[ShownCell | None]


@dataclass(frozen=True, eq=False)
class TableView:
    """One table under one protocol; without a protocol it holds the paper's numbers alone.

    `datasets` are the upper heads, each with the number of its columns; `families` are the groups
    of rows by their title. `selected` holds our results in the order of the cells, `letters` the
    text of each deviation by its letter.
    """

    table: Table
    protocol: Protocol | None
    datasets: list[tuple[str, int]]
    columns: list[Head]
    families: dict[str, list[Row]]
    selected: list[SelectedResult]
    letters: dict[str, str]
    remarks: list[Remark]


def views_of(report: Report, table: Table) -> list[TableView]:
    """Return a view for each protocol with a result, or one with the paper's numbers."""
    return [_view(report, table, protocol) for protocol in report.protocols(table) or (None,)]


def _view(report: Report, table: Table, protocol: Protocol | None) -> TableView:
    ours: dict[str, SelectedResult] = {}
    if protocol is not None:
        for cell in table.cells:
            if (selected := report.selected.get((cell.key, protocol))) is not None:
                ours[cell.key] = selected
    # A text has one letter in the whole table, in order of appearance.
    texts = dict.fromkeys(mark.text for result in ours.values() for mark in result.ours.marks)
    letters = dict(zip(texts, alphabet(), strict=False))
    about = remarks(table)

    def numbers(scope: Scope, name: str) -> list[str]:
        return [str(r.number) for r in about if r.scope == scope and name in r.at]

    def shown(encoder: str, column: str) -> ShownCell | None:
        if (cell := table.at(encoder, column)) is None:
            return None
        result = ours.get(cell.key)
        marks = result.ours.marks if result else ()
        return ShownCell(
            cell, result, numbers("cell", cell.key), [letters[mark.text] for mark in marks]
        )

    # Rows in the order of the paper, which keeps each family together.
    families: dict[str, list[Row]] = {}
    for encoder in encoders().values():
        cells = [shown(encoder.name, column) for column in table.columns]
        row = Row(encoder.title, numbers("row", encoder.name), cells)
        families.setdefault(family_title(encoder.family), []).append(row)
    datasets = groupby(table.columns, lambda column: column.partition("/")[0])
    return TableView(
        table=table,
        protocol=protocol,
        datasets=[(dataset_titles()[name], len(list(columns))) for name, columns in datasets],
        columns=[Head(kind_title(column), numbers("column", column)) for column in table.columns],
        families=families,
        selected=list(ours.values()),
        letters={letter: text for text, letter in letters.items()},
        remarks=about,
    )


def alphabet() -> Iterator[str]:
    """Yield a … z, aa, ab … as the columns of a spreadsheet."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def remarks(table: Table) -> list[Remark]:
    """Return the known issues of a table, numbered from 1."""
    about = ([cell for cell in table.cells if issue.is_about(cell)] for issue in known_issues())
    pairs = [(issue, cells) for issue, cells in zip(known_issues(), about, strict=True) if cells]
    return [
        Remark(number, issue, *_placed(table, cells))
        for number, (issue, cells) in enumerate(pairs, start=1)
    ]


def _placed(table: Table, about: Iterable[Cell]) -> tuple[Scope, frozenset[str]]:
    """Return the widest scope that holds exactly these cells, and the names of its heads."""
    chosen = {cell.key for cell in about}
    # A remark on the whole table has no mark at a head or a cell.
    if len(chosen) == len(table.cells):
        return "table", frozenset()
    rows = frozenset(cell.encoder for cell in about)
    if {cell.key for cell in table.cells if cell.encoder in rows} == chosen:
        return "row", rows
    columns = frozenset(cell.column for cell in about)
    if {cell.key for cell in table.cells if cell.column in columns} == chosen:
        return "column", columns
    return "cell", frozenset(chosen)
