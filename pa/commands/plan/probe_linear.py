"""`pa plan probe linear`: sizes of heads, tables and features of a linear probe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.commands.plan.work import (
    CELL_BYTES,
    CLASS_BYTES,
    EPOCH_BYTES,
    RESULT_BYTES,
    TABLE_BYTES,
    WorkItem,
    recorded_seconds,
)

if TYPE_CHECKING:
    from pa.probe.linear.recipes import LinearRecipe
    from pa.probe.linear.run import LinearOptions
    from pa.probe.selection import Split


def plan_linear(
    split: Split,
    representation: str,
    recipe: LinearRecipe,
    extras: LinearOptions,
    results: Path,
) -> WorkItem:
    """Plan one run. The recorded time is scaled by training rows and epochs."""
    from pa.probe.linear.run import TASK

    n_train, n_rows = len(split.train.rows), len(split.train.rows) + len(split.test.rows)
    n_classes = len(split.classes)
    store = split.train.store
    (width,) = store.shape(representation)
    memory = n_rows * width * store.empty(representation, 0).itemsize
    if extras.wants_references(n_train, width, n_classes):
        memory += 8 * n_rows * width  # the references are fitted in float64
    is_sweep = extras.grid is not None
    n_bytes = RESULT_BYTES + CLASS_BYTES * n_classes + CELL_BYTES * n_classes**2
    n_bytes += extras.seeds * 4 * (n_classes * width + n_classes)  # weight and bias, float32
    n_bytes += (1 + is_sweep) * TABLE_BYTES + EPOCH_BYTES * extras.seeds * recipe.epochs

    def work_of(fields: Mapping[str, Any]) -> float | None:
        protocol = fields["protocol"]
        if (protocol["sweep"] is not None) != is_sweep or protocol["seeds"] != extras.seeds:
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
