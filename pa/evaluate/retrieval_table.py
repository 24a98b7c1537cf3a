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
import numpy.typing as npt
import polars as pl

from pa.data.files import write_parquet
from pa.data.store.reader import Store
from pa.evaluate.bootstrap import Mean, Means, bootstrap_means, influence
from pa.evaluate.gallery_effects import GalleryEffects
from pa.evaluate.results import (
    Gallery,
    Pair,
    RecordedProtocol,
    RetrievalCounts,
    RetrievalDifference,
    RetrievalResult,
    RowCounts,
    StoreReference,
    TargetSelection,
    write_result,
)
from pa.evaluate.retrieval import AllPairs, check_labels, evaluate_all_pairs
from pa.evaluate.rows import (
    ENCODED,
    Rows,
    check_same_rows,
    read_vectors,
    rows_to_score,
    stores_and_vectors,
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
class Scored:
    """The scores of one store and representation, and their files."""

    store: Store
    representation: str
    pairs: AllPairs
    means: Means
    result: RetrievalResult
    path: Path

    @property
    def encoder(self) -> str:
        return self.store.encoder


@dataclass(frozen=True, eq=False)
class Paired:
    """The difference of two scores of the same queries."""

    first: Scored
    second: Scored
    means: Means
    result: RetrievalDifference
    path: Path

    @property
    def name(self) -> str:
        """What both share, then the difference: `dino: projected − cls`, `cls: dino − mocov3`."""
        first, second = self.first, self.second
        if first.encoder == second.encoder:
            return f"{first.encoder}: {first.representation} − {second.representation}"
        return f"{first.representation}: {first.encoder} − {second.encoder}"


def score_stores(
    stores: Sequence[Store],
    representations: Sequence[str],
    *,
    results: Path,
    protocol: RetrievalProtocol,
    target: str = "label",
    device: str = "cpu",
    progress: Progress,
) -> tuple[list[Scored], list[Paired]]:
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
        _score(store, name, rows, results, protocol, device, progress)
        for store, name in stores_and_vectors(stores, representations)
    ]
    paired = [
        _compare(first, second, rows, results, protocol) for first, second in _to_compare(scored)
    ]
    return scored, paired


def better_encoded(scored: Sequence[Scored]) -> list[Scored]:
    """Return the better of `cls` and `pooled` of each encoder that has both.

    The paper reports it (A.4). It is selected on the reported score, which biases it upwards.
    """
    chosen = []
    for store in dict.fromkeys(entry.store.path for entry in scored):
        both = [e for e in scored if e.store.path == store and e.representation in ENCODED]
        if len(both) == len(ENCODED):
            chosen.append(max(both, key=lambda entry: entry.means.overall.value))
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
        progress=Named(progress, store.label),
    )
    clock.lap("score")
    scored = ~np.isnan(pairs.ap)  # (N,)
    means = _means(pairs.ap, pairs.effects, rows, pairs)
    clock.lap("bootstrap")
    result = RetrievalResult(
        protocol=RecordedProtocol(protocol.to_json()),
        stores=Gallery(StoreReference.of(store)),
        representation=representation,
        selection=TargetSelection(rows.target),
        counts=RetrievalCounts(
            **rows.counts(),
            queries=int(scored.sum()),
            left_out_without_relevant=int((~scored).sum()),
        ),
        scores=_named_scores(means),
        seconds=clock.laps,
        details={"device": device, "classes": list(rows.names)},
    )
    path = result.path(results)
    write_parquet(path.with_suffix(".parquet"), _per_query(rows, pairs))
    write_result(results, result)
    return Scored(store, representation, pairs, means, result, path)


def _per_query(rows: Rows, pairs: AllPairs) -> pl.DataFrame:
    assert pairs.effects is not None  # requested in `_score`
    return pl.DataFrame(
        {
            "row": rows.ids,
            "image": rows.images,
            "label": rows.labels,
            "ap": pl.Series(pairs.ap).fill_nan(None),
            "relevant": pairs.relevant,
            "prior": pairs.prior,
            "chance": pl.Series(pairs.chance).fill_nan(None),
            "influence": influence(pairs.ap, pairs.effects),
        }
    )


def _means(
    values: npt.NDArray[np.float64],
    effects: GalleryEffects | None,
    rows: Rows,
    pairs: AllPairs | None = None,
) -> Means:
    return bootstrap_means(
        values,
        rows.images,
        rows.targets,
        rows.names,
        chance=None if pairs is None else pairs.chance,
        prior=None if pairs is None else pairs.prior,
        effects=effects,
    )


def _named_scores(means: Means) -> dict[str, Mean]:
    return {
        "ap": means.overall,
        "ap_over_parts": means.over_parts,
        **{f"ap/{name}": mean for name, mean in means.parts.items()},
    }


def _to_compare(scored: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """Return pairs to subtract, the later first: projected − cls, then second − first encoder.

    Single blocks are not compared with each other: they form a curve.
    """
    whole = [entry for entry in scored if ":" not in entry.representation]
    pairs = [
        (second, first)
        for first, second in combinations(whole, 2)
        if (first.store.path == second.store.path)
        != (first.representation == second.representation)
    ]
    return sorted(pairs, key=lambda pair: pair[0].store.path != pair[1].store.path)


def _compare(
    first: Scored, second: Scored, rows: Rows, results: Path, protocol: RetrievalProtocol
) -> Paired:
    minuend, subtrahend = first.pairs, second.pairs
    assert minuend.effects is not None  # requested in `_score`
    assert subtrahend.effects is not None
    means = _means(minuend.ap - subtrahend.ap, minuend.effects - subtrahend.effects, rows)
    same = first.representation == second.representation
    result = RetrievalDifference(
        protocol=RecordedProtocol(protocol.to_json()),
        stores=Pair(StoreReference.of(first.store), StoreReference.of(second.store)),
        representation=first.representation
        if same
        else f"{first.representation} minus {second.representation}",
        selection=TargetSelection(rows.target),
        counts=RowCounts(**rows.counts()),
        scores=_named_scores(means),
        seconds={},
    )
    return Paired(first, second, means, result, write_result(results, result))
