"""Scores of part retrieval: one table over encoders and representations.

All stores of a table hold the same rows, cut by the same rules, so that every score has the same
queries and differences are paired.

Shapes: N scored rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pa.data.store.reader import Store
from pa.evaluate.bootstrap import Mean, Means, bootstrap_means, influence
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import Gallery, Pair, RecordedProtocol, StoreReference
from pa.evaluate.results import RetrievalDifference, RetrievalResult
from pa.evaluate.retrieval import AllPairs, check_labels, evaluate_all_pairs
from pa.evaluate.rows import (
    ENCODED,
    Paired,
    Rows,
    StoreScores,
    check_same_rows,
    read_vectors,
    rows_to_score,
    stores_and_vectors,
    write_queries,
)
from pa.progress import Named, Progress, Stopwatch
from pa.registry import Registry


@dataclass(frozen=True)
class RetrievalProtocol:
    """How retrieval is scored: every vector is a query, over the full ranking by cosine.

    `include_self`: whether a query is among its own candidates. The paper states "all the other
    patches"; the released code includes the query (`pr_patch_retrieval.py`). Both report the mean
    over queries.
    """

    protocol: str = "paper"
    include_self: bool = False

    def to_json(self) -> dict[str, Any]:
        named = RETRIEVAL_PROTOCOLS[self.protocol]
        changed = {
            name: value for name, value in asdict(self).items() if value != getattr(named, name)
        }
        return {**asdict(self), **_FIXED, "changed": changed}


_FIXED = {
    "similarity": "cosine, float32",
    "score": "average precision over the full ranking, equal scores share a threshold",
    "reported": "mean over queries",
}

RETRIEVAL_PROTOCOLS: Registry[RetrievalProtocol] = Registry(
    "protocol of retrieval",
    {
        "paper": RetrievalProtocol(),
        "released": RetrievalProtocol("released", include_self=True),
    },
)


@dataclass(frozen=True, eq=False)
class Scored(StoreScores[RetrievalResult]):
    """Retrieval scores of one store and representation."""

    pairs: AllPairs

    @property
    def overall(self) -> Mean:
        """Average precision over all queries."""
        return self.scores["ap"]

    @property
    def over_parts(self) -> Mean:
        """Mean over the means of the parts."""
        return self.scores["ap_over_parts"]

    @property
    def parts(self) -> dict[str, Mean]:
        """Average precision of each part."""
        named = {name.partition("/"): mean for name, mean in self.scores.items()}
        return {part: mean for (_, slash, part), mean in named.items() if slash}


def score_stores(
    stores: Sequence[Store],
    representations: Sequence[str],
    *,
    results: Path,
    protocol: RetrievalProtocol,
    target: str = "label",
    device: str = "cpu",
    progress: Progress,
) -> tuple[list[Scored], list[Paired[Scored]]]:
    """Score every store with every representation.

    Writes one result for each, with the scores of the queries as Parquet, and one for each paired
    difference: of two representations of an encoder, and of two encoders with the same
    representation.

    Parameters
    ----------
    representations : sequence of str
        Empty selects the default ones of each store.
    target : str
        Column of the rows whose equal values are relevant to each other.

    Raises
    ------
    UsageError
        For rows without a target, labels that cannot be retrieved, or vectors without a cosine.
    MismatchError
        For stores with different rows.
    """
    check_same_rows(stores)
    rows = rows_to_score(stores[0], target)
    check_labels(rows.labels, include_self=protocol.include_self, of=stores[0].title)
    scored = [
        _score(store, name, rows, results, protocol, device, Named(progress, store.label))
        for store, name in stores_and_vectors(stores, representations)
    ]
    # Single blocks are not compared with each other: they form a curve.
    whole = [entry for entry in scored if ":" not in entry.representation]
    compared = [
        (second, first)
        for first, second in combinations(whole, 2)
        if (first.store.path == second.store.path)
        != (first.representation == second.representation)
    ]
    # First the representations of one encoder, such as projected − cls, then the encoders.
    compared.sort(key=lambda pair: pair[0].store.path != pair[1].store.path)
    return scored, [_compare(*pair, rows, results) for pair in compared]


def better_encoded(scored: Sequence[Scored]) -> list[Scored]:
    """Return the better of `cls` and `pooled` of each encoder that has both.

    The paper reports it (A.4). It is selected on the reported score, which biases it upwards.
    """
    chosen = []
    for store in dict.fromkeys(entry.store.path for entry in scored):
        both = [e for e in scored if e.store.path == store and e.representation in ENCODED]
        if len(both) == len(ENCODED):
            chosen.append(max(both, key=lambda entry: entry.overall.value))
    return chosen


def _score(
    store: Store,
    representation: str,
    rows: Rows,
    results: Path,
    protocol: RetrievalProtocol,
    device: str,
    progress: Progress,
) -> Scored:
    clock = Stopwatch()
    features = read_vectors(store, representation, rows.ids)  # (N, D)
    clock.lap("read")
    pairs = evaluate_all_pairs(
        features,
        rows.targets,
        include_self=protocol.include_self,
        device=device,
        rows=rows.ids,
        with_effects=True,
        progress=progress,
    )
    assert pairs.effects is not None  # requested above
    clock.lap("score")
    means = bootstrap_means(
        pairs.ap,
        rows.images,
        rows.targets,
        rows.names,
        chance=pairs.chance,
        prior=pairs.prior,
        effects=pairs.effects,
    )
    clock.lap("bootstrap")
    result = RetrievalResult(
        protocol=RecordedProtocol(protocol.to_json()),
        stores=Gallery(StoreReference.of(store)),
        representation=representation,
        scores=_named_scores(means),
        seconds=clock.laps,
        details={"device": device, "classes": list(rows.names)},
        **rows.recorded(queries=int((~np.isnan(pairs.ap)).sum())),
    )
    columns = {
        "ap": pl.Series(pairs.ap).fill_nan(None),
        "relevant": pairs.relevant,
        "prior": pairs.prior,
        "chance": pl.Series(pairs.chance).fill_nan(None),
        "influence": influence(pairs.ap, pairs.effects),
    }
    path = write_queries(results, result, rows, columns)
    return Scored(store, representation, result, path, pairs)


def _named_scores(means: Means) -> dict[str, Mean]:
    of_parts = {f"ap/{name}": mean for name, mean in means.parts.items()}
    return {"ap": means.overall, "ap_over_parts": means.over_parts, **of_parts}


def _compare(first: Scored, second: Scored, rows: Rows, results: Path) -> Paired[Scored]:
    a, b = first.pairs, second.pairs
    assert a.effects is not None  # requested in `_score`
    assert b.effects is not None
    # Equal queries and images give equal resamples: the interval is that of a paired difference.
    means = bootstrap_means(
        a.ap - b.ap, rows.images, rows.targets, rows.names, effects=a.effects - b.effects
    )
    names = dict.fromkeys((first.representation, second.representation))  # one if both are equal
    result = RetrievalDifference(
        protocol=first.result.protocol,
        stores=Pair(StoreReference.of(first.store), StoreReference.of(second.store)),
        representation=" minus ".join(names),
        scores=_named_scores(means),
        seconds={},
        **rows.recorded(),
    )
    return Paired(first, second, result, write_result(results, result))
