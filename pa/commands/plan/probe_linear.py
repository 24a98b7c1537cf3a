"""`pa plan probe linear`: sizes of heads, tables and features of a linear probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.plan.work import WorkItem, probe_bytes, recorded_seconds, report
from pa.commands.probe.linear import LinearTraining, shots_option, training_options
from pa.commands.probe.rows import RowSelector, rows_options
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.evaluate.results import LinearProbeResult
    from pa.workspace import Workspace


@click.command()
@rows_options
@training_options
@shots_option
@options.as_json
@options.workspace
def linear(
    workspace: Workspace,
    rows: RowSelector,
    training: LinearTraining,
    shots: tuple[int, ...],
    as_json: bool,
) -> None:
    """Report the bytes, files, memory and time of linear classifiers.

    Bytes, files and memory are computed from shapes. The time is that of the newest recorded run
    with as many seeds in the workspace, scaled by rows and epochs; without such a run it is
    unknown. Exit code 1 means that the disk or the memory is too small.
    """
    from pa.probe.linear.run import TASK

    if shots:
        raise UsageError(
            "--shots trains on a few rows of each class and cannot be planned: omit it here, or "
            "run it."
        )
    stores, chosen = training.inputs(workspace, rows)
    recipe, representation, is_sweep = chosen.recipe, chosen.representation, chosen.grid is not None
    split = stores.split(recipe.protocol)
    store, n_classes = split.train.store, len(split.classes)
    n_train, n_rows = len(split.train.rows), len(split.train.rows) + len(split.test.rows)
    (width,) = store.shape(representation)
    memory = n_rows * width * store.empty(representation, 0).itemsize
    if chosen.wants_references(n_train, width, n_classes):
        memory += 8 * n_rows * width  # the references are fitted in float64
    head = n_classes * width + n_classes  # weight and bias

    def work_of(result: LinearProbeResult) -> float | None:
        protocol = result.protocol.parameters
        if (protocol["sweep"] is not None, protocol["seeds"]) != (is_sweep, chosen.seeds):
            return None
        return float(result.counts.train_rows * protocol["epochs"])

    results = workspace.config.results
    item = WorkItem(
        what=f"probe linear · {store.title} · {representation}",
        rows=n_rows,
        files=3 + is_sweep,
        bytes=probe_bytes(n_classes, chosen.seeds, head, recipe.epochs, 1 + is_sweep),
        memory=memory,
        seconds=recorded_seconds(results, TASK, n_train * recipe.epochs, work_of),
    )
    report([item], results, as_json)
