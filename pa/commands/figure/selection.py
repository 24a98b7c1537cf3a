"""Options that the commands of `pa figure` share, the objects they become, and the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.evaluate.result_files import ResultFile
    from pa.figures.record import WrittenFigure
    from pa.figures.results import EncoderResults
    from pa.report.collection import ResultCollection
    from pa.workspace import Workspace

STORED = "Encoder, or several separated by commas. Default: all that are stored."

output = options.Group(
    "output",
    "pa.figures.record:FigureOutput",
    click.Option(
        ["--out"],
        type=options.PATH,
        help="File .pdf, .png or .svg; a path without suffix gives PDF and PNG. Default: figures/.",
    ),
    click.Option(["--name"], help="Name of the files below figures/."),
    click.Option(
        ["--width"],
        type=float,
        default=6.5,  # style.PAGE_WIDTH, without the import at startup
        show_default=True,
        help="Width in inches; a column has 3.25.",
    ),
)


def show(figure: WrittenFigure, as_json: bool) -> None:
    """Print the caption and the files of a figure."""
    if as_json:
        options.emit(figure.to_json())
        return
    console.out(figure.record.caption)
    console.out("\n" + "\n".join(map(str, figure.files)))


# -- results ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResultSelector:
    """Results of a figure; None or empty selects all of one dataset and one protocol."""

    encoders: tuple[str, ...] = ()
    dataset: str | None = None
    protocol: str | None = None

    def select(
        self,
        workspace: Workspace,
        task: str,
        command: str,
        accepts: Callable[[ResultFile], bool] = lambda file: True,
    ) -> tuple[ResultCollection, list[EncoderResults]]:
        """Return all results, and those to draw; `command` produces missing ones."""
        from pa.figures.results import ResultQuery, select_by_encoder
        from pa.report.collection import collect_results

        config = workspace.config
        dataset = self.dataset or workspace.settings.dataset
        datasets = (dataset,) if dataset else ()  # empty: any dataset
        wanted = ResultQuery(task, command, self.encoders, datasets, self.protocol, accepts)
        collection = collect_results(workspace.path, config.results, config.features)
        return collection, select_by_encoder(collection, wanted, workspace.progress)


results = options.Group(
    "selector",
    ResultSelector,
    options.names(
        "--encoder",
        "encoders",
        "Encoder, or several separated by commas. Default: all that have results.",
    ),
    click.Option(["--dataset"], help="Dataset of the results."),
    click.Option(["--protocol"], help="Protocol of the results. Default: paper, if it exists."),
)


# -- neighbours ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatchSearch:
    """Queries, stores and layout of a figure of neighbours; None or empty selects the default.

    A query is a row id, or NAME:REGION: the region of that number of the image whose path contains
    NAME. `examples` are numbers, from 1, of the default queries. `fingerprints` select stores
    instead of all other fields.
    """

    queries: tuple[str, ...] = ()
    examples: tuple[int, ...] = ()  # from 1
    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    fingerprints: tuple[str, ...] = ()  # instead of a selection by name
    k: int = 24  # neighbours in the paper's figures
    across: int | None = None  # panels in a line; the default depends on the figure
    exclude_same_image: bool = False
    root: Path | None = None  # replaces the recorded root of the images

    def words(self, stores: Sequence[Store]) -> list[str]:
        """Return the options that draw the same figure again."""
        from pa.data.store.find import protocol

        spec = stores[0].spec
        words = ["--query", ",".join(self.queries)]
        words += ["--encoder", ",".join(store.encoder for store in stores)]
        words += ["--representation", ",".join(self.representations)]
        words += ["--dataset", spec.dataset, "--split", spec.split, "--view", stores[0].view]
        if (cut_by := protocol(stores[0])) is not None:
            words += ["--protocol", cut_by]
        words += ["-k", str(self.k)] if self.k != 24 else []
        words += ["--across", str(self.across)] if self.across else []
        return [*words, *(["--exclude-same-image"] if self.exclude_same_image else [])]


patch_search = options.Group(
    "patches",
    PatchSearch,
    options.names(
        "--query",
        "queries",
        "Row id, or NAME:REGION of an image, or several separated by commas. "
        "Default for imagenet: the queries of the released code.",
    ),
    click.Option(
        ["--example", "examples"],
        callback=options.numbers,
        help="Numbers of default queries, counted from 1 and separated by commas.",
    ),
    options.names("--encoder", "encoders", STORED),
    options.names(
        "--representation", "representations", "Stored vector: cls or pooled. Default: pooled."
    ),
    click.Option(["--dataset"], help="Dataset of the stores."),
    click.Option(["--split"], help="Split of the stores."),
    click.Option(["--view"], help="View of the stores. Default: grid, if it is stored."),
    click.Option(["--protocol"], help="Protocol of view parts, such as paper or released."),
    options.names(
        "--store",
        "fingerprints",
        "Fingerprints of the stores, separated by commas; replaces the other store options.",
    ),
    click.Option(
        ["-k"],
        type=click.IntRange(1),
        default=24,
        show_default=True,
        help="Number of neighbours.",
    ),
    click.Option(
        ["--across"],
        type=click.IntRange(1, 6),
        help="Number of panels next to each other. Default: 1, or 2 for projected.",
    ),
    click.Option(
        ["--exclude-same-image"], is_flag=True, help="Exclude regions of the query's image."
    ),
    click.Option(["--root"], type=options.PATH, help="Current root folder of the images."),
)
