"""`pa plan probe attentive`: sizes of heads, tables and tokens of an attentive probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.plan.work import WorkItem, probe_bytes, recorded_seconds, report
from pa.commands.probe.attentive import AttentiveTraining, training_options
from pa.commands.probe.rows import RowSelector, rows_options

if TYPE_CHECKING:
    from pa.evaluate.results import AttentiveProbeResult
    from pa.workspace import Workspace

MATRICES = 4  # (D, D) weights of a head: query, key, value, output
VECTORS = 12  # about as many of width D: biases, norms, the query token
# Token maps (B, L, D) in float32 held by a step: the tokens with their gradient, and the keys and
# values of each head.
TOKEN_MAPS, HEAD_MAPS = 2, 2


@click.command()
@rows_options
@training_options
@options.as_json
@options.workspace
def attentive(
    workspace: Workspace, rows: RowSelector, training: AttentiveTraining, as_json: bool
) -> None:
    """Report the bytes, files, memory and time of attentive classifiers.

    Bytes, files and memory are computed from shapes. The time is that of the newest recorded run
    with as many seeds and rates in the workspace, scaled by rows and epochs; without such a run it
    is unknown. Exit code 1 means that the disk or the memory is too small.
    """
    from pa.data.store.stream import Stream
    from pa.probe.attentive.run import TASK
    from pa.probe.attentive.tokens import PATCH, check_tokens

    stores, chosen = training.inputs(workspace, rows)
    recipe, split = chosen.recipe, stores.split(chosen.recipe.protocol)
    store, n_classes = split.train.store, len(split.classes)
    n_train, n_rows = len(split.train.rows), len(split.train.rows) + len(split.test.rows)
    width, (n_tokens, _) = check_tokens(store), store.shape(PATCH)
    n_heads = chosen.seeds * max(1, len(chosen.lr))
    step = 4 * min(recipe.batch, n_train) * n_tokens * width * (TOKEN_MAPS + HEAD_MAPS * n_heads)
    patches = Stream(store, PATCH, split.train.rows, memory=chosen.memory)
    head = MATRICES * width * width + (n_classes + VECTORS) * width + n_classes
    n_choices = len(chosen.lr) if len(chosen.lr) > 1 else 0

    def work_of(result: AttentiveProbeResult) -> float | None:
        protocol = result.protocol.parameters
        choices = protocol["lr_choices"] or ()
        if (protocol["seeds"], len(choices)) != (chosen.seeds, n_choices):
            return None
        return float(result.counts.train_rows * protocol["epochs"])

    results = workspace.config.results
    item = WorkItem(
        what=f"probe attentive · {store.title} · cls+patch",
        rows=n_rows,
        files=3,
        bytes=probe_bytes(n_classes, chosen.seeds, head, recipe.epochs),
        memory=patches.held_bytes(recipe.order.buffer_rows) + 2 * width * n_rows + step,
        seconds=recorded_seconds(results, TASK, n_train * recipe.epochs, work_of),
    )
    report([item], results, as_json)
