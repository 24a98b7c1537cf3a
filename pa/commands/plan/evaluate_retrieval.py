"""`pa plan evaluate retrieval`: sizes of the scores of part retrieval.

N: rows that are scored, D: width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.evaluate import scores
from pa.commands.evaluate.retrieval import (
    layers_option,
    resolve_representations,
    resolve_stores,
    store_options,
    target_option,
)
from pa.commands.plan.work import WorkItem, recorded_seconds, report

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.workspace import Workspace

# Measured sizes in bytes: a result, each of its scores (overall, over the parts, of each part), the
# line of a query in its table, and the table's header.
RESULT_BYTES, SCORE_BYTES, QUERY_BYTES, TABLE_BYTES = 2_600, 480, 22, 3_000


@click.command()
@options.encoders
@scores.representations
@store_options
@target_option
@layers_option
@options.as_json
@options.workspace
def retrieval(
    workspace: Workspace,
    encoders: tuple[str, ...],
    representations: tuple[str, ...],
    selector: StoreSelector,
    target: str,
    layers: str | None,
    as_json: bool,
) -> None:
    """Report the bytes, files, memory and time of part retrieval scores.

    Bytes, files and memory are computed from shapes. The time is that of the newest recorded score
    of the same representation in the workspace, scaled by the square of the rows; without such a
    score it is unknown. Exit code 1 means that the disk or the memory is too small.
    """
    from pa.evaluate.cosines import BLOCK_BYTES
    from pa.evaluate.results import RetrievalResult
    from pa.evaluate.rows import default_representations, require_vector, rows_to_score

    stores = resolve_stores(workspace, selector, encoders, layers)
    names = resolve_representations(stores[0], representations, layers)
    pairs = [(store, n) for store in stores for n in names or default_representations(store)]
    rows, results = rows_to_score(stores[0], target), workspace.config.results
    n, task = len(rows.ids), RetrievalResult.task
    result_bytes = RESULT_BYTES + SCORE_BYTES * (len(rows.names) + 2)
    items = []
    for store, name in pairs:
        require_vector(store, name)
        stored = name.partition(":")[0]  # without a layer
        width, itemsize = store.shape(stored)[-1], store.empty(stored, 0).itemsize

        def work_of(result: RetrievalResult, name: str = name) -> float | None:
            return result.counts.rows**2 if result.representation == name else None

        items.append(
            WorkItem(
                what=f"retrieval · {store.title} · {name}",
                rows=n,
                files=2,
                bytes=result_bytes + TABLE_BYTES + QUERY_BYTES * n,
                # Vectors in the order of the store and of the classes, unit vectors in float32, and
                # a block of cosines.
                memory=n * width * (2 * itemsize + 4) + min(BLOCK_BYTES, 4 * n * n),
                seconds=recorded_seconds(results, task, n * n, work_of),
            )
        )
    whole = [(str(store.path), name) for store, name in pairs if ":" not in name]
    if n_pairs := count_differences(whole):
        # A difference takes the time of one bootstrap, which grows with N.
        seconds = recorded_seconds(
            results, task, n_pairs * n, lambda result: result.counts.rows, "bootstrap"
        )
        n_bytes = n_pairs * result_bytes
        items.append(WorkItem("paired differences", n, n_pairs, n_bytes, 0, seconds))
    report(items, results, as_json)


def count_differences(scored: Sequence[tuple[str, str]]) -> int:
    """Count the paired differences of scored (store, representation) pairs.

    Compared are two representations of one store, and two stores with the same representation.
    """
    return sum((a[0] == b[0]) != (a[1] == b[1]) for a, b in combinations(scored, 2))
