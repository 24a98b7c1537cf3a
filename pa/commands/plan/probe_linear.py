"""`pa plan probe linear`: sizes of heads, tables and features of a linear probe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pa.commands import options
from pa.commands.plan.work import WorkItem, probe_bytes, recorded_seconds, report
from pa.commands.probe.linear import LinearTraining, shots_option, training_options
from pa.commands.probe.rows import RowSelector, rows_options
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.probe.linear.run import LinearOptions
    from pa.probe.selection import Split
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
    if shots:
        raise UsageError(
            "--shots trains on a few rows of each class and cannot be planned: omit it here, or "
            "run it."
        )
    stores, linear_options = training.inputs(workspace, rows)
    split = stores.split(linear_options.recipe.protocol)
    results = workspace.config.results
    report([plan_linear(split, linear_options, results)], results, as_json)


def plan_linear(split: Split, linear_options: LinearOptions, results: Path) -> WorkItem:
    """Plan one run. The recorded time is scaled by training rows and epochs."""
    from pa.probe.linear.run import TASK

    recipe, representation = linear_options.recipe, linear_options.representation
    n_train, n_rows = len(split.train.rows), len(split.train.rows) + len(split.test.rows)
    n_classes = len(split.classes)
    store = split.train.store
    (width,) = store.shape(representation)
    memory = n_rows * width * store.empty(representation, 0).itemsize
    if linear_options.wants_references(n_train, width, n_classes):
        memory += 8 * n_rows * width  # the references are fitted in float64
    is_sweep = linear_options.grid is not None
    head = n_classes * width + n_classes  # weight and bias
    n_bytes = probe_bytes(n_classes, linear_options.seeds, head, recipe.epochs, 1 + is_sweep)

    def work_of(fields: Mapping[str, Any]) -> float | None:
        protocol = fields["protocol"]
        if (protocol["sweep"] is not None) != is_sweep or protocol["seeds"] != linear_options.seeds:
            return None
        return float(fields["counts"]["train_rows"] * protocol["epochs"])

    return WorkItem(
        what=f"probe linear · {store.title} · {representation}",
        rows=n_rows,
        files=3 + is_sweep,
        bytes=n_bytes,
        memory=memory,
        seconds=recorded_seconds(results, TASK, n_train * recipe.epochs, work_of),
    )
