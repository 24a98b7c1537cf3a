"""`pa figure sweep`: validation accuracy by learning rate and weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.selection import ResultSelector, output, results, show
from pa.errors import MissingError, VerificationError

if TYPE_CHECKING:
    import polars as pl

    from pa.figures.record import FigureOutput
    from pa.figures.results import EncoderResults
    from pa.workspace import Workspace

COMMAND = "pa probe linear --sweep --lr 0.1,0.4,1 --weight-decay 0,0.0001"


@click.command()
@results
@output
@options.as_json
@options.workspace
def sweep(
    workspace: Workspace, selector: ResultSelector, output: FigureOutput, as_json: bool
) -> None:
    """Draw the validation accuracy of the linear probe by learning rate and weight decay.

    Draws results of `pa probe linear --sweep`.

    \b
    pa figure sweep --dataset cub
    pa figure sweep --dataset cub --encoder dino,mae --width 3.25
    """
    from pa.figures.names import listed, representation_title
    from pa.figures.scores import describe

    collection, chosen = selector.select(
        workspace, "probe-linear", COMMAND, lambda file: file.result.protocol.sweep is not None
    )
    # Loads torch: only if there is something to draw.
    from pa.figures.curves import by_representation, draw_sweep

    sheets = {
        f"{entry.title}, {representation_title(name)}": sheet
        for entry in chosen
        for name, sheet in by_representation(_table(entry)).items()
    }
    protocol = chosen[0].results[0].result.protocol
    encoders = listed(entry.title for entry in chosen)
    mean = f"mean of {protocol.seeds} seeds, " if protocol.seeds != 1 else ""
    record = describe(
        "sweep",
        collection,
        chosen,
        title=f"Sweep of the linear probe: {encoders}",
        sentence=(
            f"Validation accuracy (%) of a linear probe of {encoders} on {chosen[0].store.dataset} "
            f"by learning rate and weight decay ({mean}on a {(protocol.sweep or {})['by']}); the "
            f"framed setting was selected, a cross marks one that diverged. No test row took part."
        ),
    )
    target = record.target(output, workspace.config.figures)
    draw_sweep(sheets, target)
    show(record.write(target.paths), as_json)


def _table(entry: EncoderResults) -> pl.DataFrame:
    """Read the table of a sweep, compared with the checksum of the result."""
    import polars as pl

    result = entry.results[0]
    file = result.path.with_suffix(".sweep.parquet")
    again = f"{COMMAND} --encoder {entry.encoder} --dataset {entry.store.dataset}"
    if not file.is_file():
        raise MissingError(
            f"{file}, the table of the sweep, is missing next to its result. Sweep again:\n"
            f"  {again}"
        )
    if (difference := result.companion_difference(file)) is not None:
        raise VerificationError(f"{file}: {difference}. Sweep again:\n  {again}")
    return pl.read_parquet(file, glob=False)  # a path may contain * or [
