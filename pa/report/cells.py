"""The paper's tables as data: one `Cell` per printed number.

`published/tableN.csv` holds the numbers as printed, one file per table; `published/tables.toml`
describes tables, columns, datasets and encoders. Nothing is computed here.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Literal, get_args

from pa.errors import UnknownNameError

Task = Literal[
    "retrieval",
    "part-classification",
    "image-classification",
    "object-segmentation",
    "part-segmentation",
]
Probe = Literal["none", "linear", "attentive"]
Metric = Literal["AP", "top-1", "mIoU", "mAcc", "aAcc"]
Representation = Literal["encoded", "projected"]
TASKS: tuple[Task, ...] = get_args(Task)
NOT_PRINTED = "–"  # of a cell that the paper leaves empty


@dataclass(frozen=True)
class Question:
    """What a number measures, whatever the table: Tables 4, 5 and 6 print some numbers twice.

    `encoder` and `dataset` are the names that `pa` uses.
    """

    encoder: str
    dataset: str
    task: Task
    probe: Probe
    representation: Representation
    metric: Metric


@dataclass(frozen=True)
class Cell:
    """One printed number.

    `key` names it permanently: "t3/dino/cub/encoded" is table, encoder, dataset and kind of column.
    `encoder` and `dataset` are the names that `pa` uses. `printed` is the number in percent as the
    paper prints it, `section` the section of the table.
    """

    table: int
    encoder: str
    column: str
    dataset: str
    task: Task
    probe: Probe
    representation: Representation
    metric: Metric
    printed: str
    section: str

    @property
    def key(self) -> str:
        return f"t{self.table}/{self.encoder}/{self.column}"

    @property
    def value(self) -> float:
        """Percent."""
        return float(self.printed)

    @property
    def source(self) -> str:
        """Table, encoder and column of the number."""
        return f"Table {self.table}, {encoders()[self.encoder].title}, {column_title(self.column)}"

    @property
    def sentence(self) -> str:
        """Describe the cell in a line: "Table 3, CUB-200-2011, MoCo v3, encoded, AP"."""
        kind = kind_title(self.column)
        words = [f"Table {self.table}", dataset_titles()[self.dataset]]
        words += [encoders()[self.encoder].title, *([kind.lower()] if kind != self.metric else [])]
        return ", ".join([*words, self.metric])

    @property
    def question(self) -> Question:
        """The question that the number answers."""
        return Question(
            self.encoder, self.dataset, self.task, self.probe, self.representation, self.metric
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "table": self.table,
            "encoder": self.encoder,
            "dataset": self.dataset,
            "task": self.task,
            "probe": self.probe,
            "representation": self.representation,
            "metric": self.metric,
            "printed": self.printed,
            "source": self.source,
        }


@dataclass(frozen=True)
class EncoderName:
    """An encoder of the paper; `family` is `supervised`, `contrastive`, `mim` or `both`."""

    name: str
    title: str
    family: str


@dataclass(frozen=True)
class Table:
    """A table with its `columns` in printed order ("cub/encoded") and its cells."""

    number: int
    section: str
    title: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]

    def at(self, encoder: str, column: str) -> Cell | None:
        """Return the cell of a row and a column, None if the paper prints a dash."""
        for cell in self.cells:
            if (cell.encoder, cell.column) == (encoder, column):
                return cell
        return None


@cache
def tables() -> tuple[Table, ...]:
    """Return Tables 1 to 6 of the paper."""
    return tuple(_read(described) for described in _described()["tables"])


@cache
def published() -> tuple[Cell, ...]:
    """Return every printed number of Tables 1 to 6, by table, row and column."""
    return tuple(cell for table in tables() for cell in table.cells)


def cell(key: str) -> Cell:
    """Return the cell of a key such as "t3/dino/cub/encoded". Raise `UnknownNameError`."""
    known = _by_key().get(key)
    if known is None:
        raise UnknownNameError(
            "cell of the paper", key, _by_key(), "A key is t<table>/<encoder>/<dataset>/<column>."
        )
    return known


@cache
def encoders() -> Mapping[str, EncoderName]:
    """Return the encoders of the paper in the order of its rows."""
    return {name: EncoderName(name, **fields) for name, fields in _described()["encoders"].items()}


@cache
def families() -> Mapping[str, str]:
    """Return the heading of each family of encoders."""
    return dict(_described()["families"])


@cache
def dataset_titles() -> Mapping[str, str]:
    """Return the title of each dataset in the paper, by the name that `pa` uses."""
    return dict(_described()["datasets"])


def kind_title(column: str) -> str:
    """Return the last heading of a column: "Encoded", "mIoU"."""
    return str(_described()["kinds"][column.rpartition("/")[2]]["title"])


def column_title(column: str) -> str:
    """Return the headings of a column: "CUB-200-2011 Encoded"."""
    return f"{dataset_titles()[column.partition('/')[0]]} {kind_title(column)}"


@cache
def paper() -> str:
    """Return the citation of the paper."""
    return str(_described()["source"])


@cache
def _by_key() -> Mapping[str, Cell]:
    return {cell.key: cell for cell in published()}


def _folder() -> Traversable:
    return resources.files("pa.report") / "published"


@cache
def _described() -> Mapping[str, Any]:
    return tomllib.loads((_folder() / "tables.toml").read_text(encoding="utf-8"))


def _read(described: Mapping[str, Any]) -> Table:
    number, tasks = described["number"], described["tasks"]
    text = (_folder() / f"table{number}.csv").read_text(encoding="utf-8")
    heading, *rows = csv.reader(text.splitlines())
    columns = tuple(heading[1:])
    cells = []
    for encoder, *numbers in rows:
        for column, printed in zip(columns, numbers, strict=True):
            if printed == NOT_PRINTED:
                continue
            dataset, _, kind = column.partition("/")
            fields = {k: v for k, v in _described()["kinds"][kind].items() if k != "title"}
            cells.append(
                Cell(
                    table=number,
                    encoder=encoder,
                    column=column,
                    dataset=dataset,
                    task=tasks.get(column, tasks.get(dataset)),
                    printed=printed,
                    section=described["section"],
                    **fields,
                )
            )
    return Table(number, described["section"], described["title"], columns, tuple(cells))
