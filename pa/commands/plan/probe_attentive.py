"""`pa plan probe attentive`: sizes of heads, tables and tokens of an attentive probe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pa.commands import options
from pa.commands.plan.work import WorkItem, probe_bytes, recorded_seconds, report
from pa.commands.probe.attentive import AttentiveTraining, training_options
from pa.commands.probe.rows import RowSelector, rows_options

if TYPE_CHECKING:
    from pa.probe.attentive.run import AttentiveOptions
    from pa.probe.selection import Split
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
    stores, attentive_options = training.inputs(workspace, rows)
    split = stores.split(attentive_options.recipe.protocol)
    results = workspace.config.results
    report([plan_attentive(split, attentive_options, results)], results, as_json)


def plan_attentive(split: Split, attentive_options: AttentiveOptions, results: Path) -> WorkItem:
    """Plan one run. The recorded time is scaled by training rows and epochs."""
    from pa.data.store.stream import Stream
    from pa.probe.attentive.run import TASK
    from pa.probe.attentive.tokens import PATCH, check_tokens

    recipe, store = attentive_options.recipe, split.train.store
    n_train, n_rows = len(split.train.rows), len(split.train.rows) + len(split.test.rows)
    n_classes, width = len(split.classes), check_tokens(store)
    n_tokens, _ = store.shape(PATCH)
    n_heads = attentive_options.seeds * max(1, len(attentive_options.lr))
    step = 4 * min(recipe.batch, n_train) * n_tokens * width * (TOKEN_MAPS + HEAD_MAPS * n_heads)
    patches = Stream(store, PATCH, split.train.rows, memory=attentive_options.memory)
    memory = patches.held_bytes(recipe.order.buffer_rows) + 2 * width * n_rows + step
    head = MATRICES * width * width + (n_classes + VECTORS) * width + n_classes

    def work_of(fields: Mapping[str, Any]) -> float | None:
        protocol = fields["protocol"]
        if (protocol["seeds"], len(protocol["lr_choices"] or ())) != (
            attentive_options.seeds,
            len(attentive_options.lr) if len(attentive_options.lr) > 1 else 0,
        ):
            return None
        return float(fields["counts"]["train_rows"] * protocol["epochs"])

    return WorkItem(
        what=f"probe attentive · {store.title} · cls+patch",
        rows=n_rows,
        files=3,
        bytes=probe_bytes(n_classes, attentive_options.seeds, head, recipe.epochs),
        memory=memory,
        seconds=recorded_seconds(results, TASK, n_train * recipe.epochs, work_of),
    )
