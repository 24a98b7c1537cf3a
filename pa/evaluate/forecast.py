"""What part retrieval will take, reckoned from a short run of the same code on this machine.

Shapes: N rows that are scored, m rows of the sample, D width, C classes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pa.data.store.store import Store
from pa.errors import UsageError
from pa.evaluate.bootstrap import bootstrap_means
from pa.evaluate.cosines import BLOCK_BYTES
from pa.evaluate.retrieval import evaluate_all_pairs
from pa.evaluate.rows import Rows, read_vectors, require_vector

SAMPLE_ROWS = 4096
# Measured: a result, each of its scores (all, over the parts, of every part), and a query's line in
# the table beside it.
RESULT_BYTES, SCORE_BYTES, QUERY_BYTES, TABLE_BYTES = 2_600, 480, 22, 3_000


@dataclass(frozen=True)
class ScoringForecast:
    """`files` and `bytes` of results, arrays in memory (`memory`, bytes), `seconds`."""

    files: int
    bytes: int
    memory: int
    seconds: float


def forecast_scoring(
    store: Store, representation: str, rows: Rows, *, include_self: bool, device: str
) -> ScoringForecast:
    """Reckon the scores of one store and representation.

    Timed are reading and ranking m rows, at most 4,096 and evenly spread, and the bootstrap of all
    N. What ranks N rows grows with N², the effect of the gallery with N. Raises
    what `require_vector` and `evaluate_all_pairs` do.
    """
    require_vector(store, representation)
    n = len(rows.ids)
    places = np.unique(np.linspace(0, n - 1, min(n, SAMPLE_ROWS)).astype(np.int64))
    began = time.perf_counter()
    features = read_vectors(store, representation, rows.ids[places])
    read = (time.perf_counter() - began) / len(places)
    targets = rows.targets[places]
    if len(np.unique(targets)) < 2:
        raise UsageError(
            f"the {len(places)} rows of {store.title} that are timed have one {rows.target}: "
            f"retrieval needs two classes or more. Choose another column with --target."
        )
    began = time.perf_counter()
    evaluate_all_pairs(features, targets, include_self=include_self, device=device)
    ranked = time.perf_counter() - began
    rank = ranked / len(places) ** 2
    began = time.perf_counter()
    evaluate_all_pairs(
        features, targets, include_self=include_self, device=device, with_effects=True
    )
    effects = max(0.0, time.perf_counter() - began - ranked) / len(places)
    width = features.shape[1]
    return ScoringForecast(
        files=2,
        bytes=_json_bytes(rows) + TABLE_BYTES + QUERY_BYTES * n,
        # As stored and in the order of the classes, unit vectors, and the cosines of a block.
        memory=n * width * (2 * features.itemsize + 4) + min(BLOCK_BYTES, 4 * n * n),
        seconds=n * (read + effects) + n * n * rank + _bootstrap(rows),
    )


def forecast_differences(rows: Rows, scored: list[tuple[str, str]]) -> ScoringForecast:
    """Reckon the paired differences of what is scored, as (store, representation): of two
    representations of one store, and of two stores with the same representation."""
    pairs = sum((a[0] == b[0]) != (a[1] == b[1]) for a, b in combinations(scored, 2))
    return ScoringForecast(pairs, pairs * _json_bytes(rows), 0, pairs * _bootstrap(rows))


def _json_bytes(rows: Rows) -> int:
    return RESULT_BYTES + SCORE_BYTES * (len(rows.names) + 2)


def _bootstrap(rows: Rows) -> float:
    """Seconds of the interval of one score, whatever the values are."""
    began = time.perf_counter()
    values = np.random.default_rng(0).random(len(rows.ids))
    bootstrap_means(values, rows.images, rows.targets, rows.names)
    return time.perf_counter() - began
