"""`pa plan probe attentive`: sizes of heads, tables and tokens of an attentive probe."""

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
    from pa.probe.attentive.recipes import AttentiveRecipe
    from pa.probe.attentive.run import AttentiveOptions
    from pa.probe.selection import Split

MATRICES = 4  # (D, D) weights of a head: query, key, value, output
VECTORS = 12  # about as many of width D: biases, norms, the query token
# Token maps (B, L, D) in float32 held by a step: the tokens with their gradient, and the keys and
# values of each head.
TOKEN_MAPS, HEAD_MAPS = 2, 2


def plan_attentive(
    split: Split, recipe: AttentiveRecipe, extras: AttentiveOptions, results: Path
) -> WorkItem:
    """Plan one run. The recorded time is scaled by training rows and epochs."""
    from pa.data.store.stream import Stream
    from pa.probe.attentive.run import TASK
    from pa.probe.attentive.tokens import PATCH, check_tokens

    store = split.train.store
    n_train, n_rows = len(split.train.rows), len(split.train.rows) + len(split.test.rows)
    n_classes, width = len(split.classes), check_tokens(store)
    n_tokens, _ = store.shape(PATCH)
    n_heads = extras.seeds * max(1, len(extras.lr))
    step = 4 * min(recipe.batch, n_train) * n_tokens * width * (TOKEN_MAPS + HEAD_MAPS * n_heads)
    patches = Stream(store, PATCH, split.train.rows, memory=extras.memory)
    memory = patches.held_bytes(recipe.order.buffer_rows) + 2 * width * n_rows + step
    head = MATRICES * width * width + (n_classes + VECTORS) * width + n_classes
    n_bytes = RESULT_BYTES + CLASS_BYTES * n_classes + CELL_BYTES * n_classes**2
    n_bytes += 4 * extras.seeds * head + TABLE_BYTES + EPOCH_BYTES * extras.seeds * recipe.epochs

    def work_of(fields: Mapping[str, Any]) -> float | None:
        protocol = fields["protocol"]
        if (protocol["seeds"], len(protocol["lr_choices"] or ())) != (
            extras.seeds,
            len(extras.lr) if len(extras.lr) > 1 else 0,
        ):
            return None
        return float(fields["counts"]["train_rows"] * protocol["epochs"])

    return WorkItem(
        what=f"probe attentive · {store.title} · cls+patch",
        rows=n_rows,
        files=3,
        bytes=n_bytes,
        memory=memory,
        seconds=recorded_seconds(results, TASK, n_train * recipe.epochs, work_of),
    )
