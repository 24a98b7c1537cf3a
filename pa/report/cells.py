"""The paper's tables as data: one `Cell` per printed number.

`published/tableN.csv` holds the numbers as printed, one file per table; `published/tables.toml`
describes tables, columns, datasets and encoders. Nothing is computed here.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal

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
NOT_PRINTED = "–"  # in a cell that the paper leaves empty


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
class Cell(Question):
    """One printed number and the question that it answers.

    `column` is "dataset/kind", `printed` the number in percent as the paper prints it.
    """

    table: int
    column: str
    printed: str

    @property
    def key(self) -> str:
        """Permanent name, of table, encoder, dataset and kind: "t3/dino/cub/encoded"."""
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
        words += [encoders()[self.encoder].title]
        # In tables of segmentation the kind of a column is the metric.
        return ", ".join([*words, *([] if kind == self.metric else [kind.lower()]), self.metric])

    @property
    def question(self) -> Question:
        """The question alone: cells of several tables can have the same."""
        # A cell is a question, too; dataclasses of two classes are never equal.
        return Question(*(getattr(self, field.name) for field in fields(Question)))

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "table": self.table,
            **asdict(self.question),
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
    title: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]

    def at(self, encoder: str, column: str) -> Cell | None:
        """Return the cell of a row and a column, None if the paper prints a dash."""
        for cell in self.cells:
            if (cell.encoder, cell.column) == (encoder, column):
                return cell
        return None


def read_toml(*names: str) -> dict[str, Any]:
    """Read a TOML file of this package."""
    file = resources.files("pa.report").joinpath(*names)
    return tomllib.loads(file.read_text(encoding="utf-8"))


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
    if (known := _by_key().get(key)) is None:
        raise UnknownNameError(
            "cell of the paper", key, _by_key(), "A key is t<table>/<encoder>/<dataset>/<column>."
        )
    return known


@cache
def _by_key() -> Mapping[str, Cell]:
    return {cell.key: cell for cell in published()}


@cache
def encoders() -> Mapping[str, EncoderName]:
    """Return the encoders of the paper in the order of its rows."""
    return {name: EncoderName(name, **fields) for name, fields in _described()["encoders"].items()}


def family_title(family: str) -> str:
    """Return the heading of a family of encoders."""
    return str(_described()["families"][family])


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


def paper() -> str:
    """Return the citation of the paper."""
    return str(_described()["source"])


@cache
def _described() -> Mapping[str, Any]:
    return read_toml("published", "tables.toml")


def _read(described: Mapping[str, Any]) -> Table:
    number, tasks, cells = described["number"], described["tasks"], []
    file = resources.files("pa.report") / "published" / f"table{number}.csv"
    # The first row has the names of the columns, the first column those of the encoders.
    heading, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    columns = tuple(heading[1:])
    for encoder, *numbers in rows:
        for column, printed in zip(columns, numbers, strict=True):
            if printed == NOT_PRINTED:
                continue
            dataset, _, kind = column.partition("/")
            # Table 3 has two tasks for one dataset, so a task is of a dataset or of a column.
            task = tasks.get(column, tasks.get(dataset))
            of_kind = {k: v for k, v in _described()["kinds"][kind].items() if k != "title"}
            cells.append(
                Cell(
                    encoder=encoder,
                    dataset=dataset,
                    task=task,
                    table=number,
                    column=column,
                    printed=printed,
                    **of_kind,
                )
            )
    return Table(number, described["title"], columns, tuple(cells))
