"""Options and selection of results that `pa figure depth`, `shares` and `sweep` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pa.commands import options

if TYPE_CHECKING:
    from pa.evaluate.result_files import ResultFile
    from pa.figures.results import EncoderResults
    from pa.report.collection import ResultCollection
    from pa.workspace import Workspace


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


selection = options.Group(
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
