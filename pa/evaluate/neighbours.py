"""The nearest neighbours of every part patch: their relation to the query, and hubness.

The paper shows examples (Figure 4): projected representations retrieve wholes, encoded ones parts.
Here it is a share of all neighbours, with an interval.

Shapes: N scored rows, D width, k neighbours, M measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.store.reader import Store
from pa.errors import OutOfRangeError, UsageError
from pa.evaluate.bootstrap import Mean, bootstrap_means
from pa.evaluate.cosines import UnitVectors
from pa.evaluate.intervals import Floats, Ints
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import Gallery, RecordedProtocol, StoreReference
from pa.evaluate.results import NeighboursDifference, NeighboursResult
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
from pa.progress import Named, Progress, Silent, Stopwatch

# Relation of a neighbour to its query. Exactly one holds.
SAME_PART_SAME_CLASS = "same part, another object of the same class"
SAME_PART = "same part, object of another class"
SAME_OBJECT = "another part of the same object"
SAME_CLASS = "another part, another object of the same class"
UNRELATED = "another part, object of another class"
SAME_PART_SAME_OBJECT = "same part of the same object"
RELATIONS = (
    SAME_PART_SAME_CLASS,
    SAME_PART,
    SAME_OBJECT,
    SAME_CLASS,
    UNRELATED,
    SAME_PART_SAME_OBJECT,
)

# Sums of relations, which the part-to-whole hypothesis is about; the image is independent of them.
PART = "same part of another object"
WHOLE = "another part of the same object or class"
SAME_IMAGE = "same image"
MEASURES = (*RELATIONS, PART, WHOLE, SAME_IMAGE)

USUAL_K = 24  # neighbours in the paper's Figures 2 and 4
HUBS_KEPT = 100  # most frequent neighbours listed in a result; figures show 20


def default_k(n_rows: int) -> int:
    """Return the number of neighbours of each of `n_rows` rows: 24, or all others if fewer."""
    return min(USUAL_K, n_rows - 1)


def check_k(k: int, n_rows: int) -> None:
    """Raise `OutOfRangeError` unless each of `n_rows` rows has k others."""
    if not 1 <= k < n_rows:
        raise OutOfRangeError(f"k must be from 1 to {n_rows - 1}, the other rows; found {k}.")


def all_neighbours(
    features: npt.NDArray[Any],
    k: int,
    *,
    rows: Ints | None = None,
    progress: Progress | None = None,
) -> Ints:
    """Return the k nearest other vectors of every vector by cosine.

    Cosines are float32, from one matrix product per block of queries.

    Parameters
    ----------
    features : array of shape (N, D)
    rows : integer array of shape (N,), optional
        Row ids used in error messages.

    Returns
    -------
    integer array of shape (N, k)
        Indices into `features`, nearest first; equal cosines by ascending index.

    Raises
    ------
    OutOfRangeError
        For k outside 1 to N - 1.
    UsageError
        For vectors without a cosine.
    """
    n = len(features)
    check_k(k, n)
    gallery = UnitVectors.of(features, rows)
    out = np.empty((n, k), dtype=np.int64)  # (N, k)
    progress = progress or Silent()
    progress.start(f"{k} nearest neighbours", n, "queries")
    try:
        for start, block in gallery.blocks():  # (n, N)
            # A vector is not its own neighbour.
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
            for query, cosines in enumerate(block, start):
                # Partition, not sort: k is small. The candidates ascend by index, so that a stable
                # sort puts equal cosines in that order.
                least = np.partition(cosines, n - k)[n - k]
                among = np.flatnonzero(cosines >= least)
                nearest = np.argsort(-cosines[among], kind="stable")[:k]
                out[query] = among[nearest]
            progress.advance(len(block))
    finally:
        progress.stop()
    return out


@dataclass(frozen=True, eq=False)
class NeighbourRelation:
    """Part, object, class and image of N rows, as numbers (N,), which relate rows to each other.

    An object has one class. If classes are unknown, every object has a different class.
    """

    part: Ints
    object: Ints
    object_class: Ints
    image: Ints

    def shares(self, neighbours: Ints, queries: Ints | None = None) -> Floats:
        """Return the share of each of `MEASURES` among the neighbours (n, k) of queries, (n, M).

        `queries` (n,) are indices of the queries, by default of all rows.
        """
        rows = np.arange(len(self.part)) if queries is None else queries

        def share(*columns: Ints) -> Floats:
            equal = [column[neighbours] == column[rows, None] for column in columns]  # (n, k) each
            shares: Floats = np.logical_and.reduce(equal).mean(axis=1)  # (n,)
            return shares

        return self._measures(share)

    def expected(self) -> Floats:
        """Return the expected shares (N, M) of neighbours drawn at random from all other rows."""

        def share(*columns: Ints) -> Floats:
            rows = np.stack(columns, axis=1)
            _, group, sizes = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
            shares: Floats = (sizes[group.ravel()] - 1) / (len(rows) - 1)  # (N,), without itself
            return shares

        return self._measures(share)

    def _measures(self, share: Callable[..., Floats]) -> Floats:
        """Return `MEASURES` (n, M); `share` gives the share (n,) of rows equal in some columns."""
        part, same_object, same_class = map(share, (self.part, self.object, self.object_class))
        part_of_object = share(self.part, self.object)  # overlaps both part and same_object
        part_of_class = share(self.part, self.object_class)  # contains part_of_object
        shares = {
            SAME_PART_SAME_CLASS: part_of_class - part_of_object,
            SAME_PART: part - part_of_class,
            SAME_OBJECT: same_object - part_of_object,
            SAME_CLASS: (same_class - part_of_class) - (same_object - part_of_object),
            UNRELATED: 1 - part - (same_class - part_of_class),
            SAME_PART_SAME_OBJECT: part_of_object,
            PART: part - part_of_object,
            WHOLE: same_class - part_of_class,
            SAME_IMAGE: share(self.image),
        }
        return np.stack([shares[name] for name in MEASURES], axis=1)


@dataclass(frozen=True, eq=False)
class Hubness:
    """How unevenly rows appear among the k nearest neighbours of the others.

    `occurrences` (N,) int64; `skewness` of its distribution (Radovanović et al. 2010), and
    `chance_skewness` for random neighbours; `never`, the share of rows that are never a neighbour.
    """

    occurrences: Ints
    skewness: float
    chance_skewness: float
    never: float

    @property
    def top(self) -> Ints:
        """Indices of all rows, the most frequent neighbour first."""
        return np.argsort(-self.occurrences, kind="stable")

    def to_json(self) -> dict[str, Any]:
        return {
            "skewness": self.skewness,
            "chance_skewness": self.chance_skewness,
            "never": self.never,
            "most": int(self.occurrences.max()),
        }


def hubness(neighbours: Ints) -> Hubness:
    """Count how often each row is among the neighbours (N, k)."""
    n, k = neighbours.shape
    occurrences = np.bincount(neighbours.ravel(), minlength=n)  # (N,)
    centred = occurrences - occurrences.mean()  # (N,)
    spread = float(np.sqrt((centred**2).mean()))
    # A row is a random neighbour of another with probability p: the skewness of a binomial.
    p = k / (n - 1)
    spread_at_random = np.sqrt((n - 1) * p * (1 - p))
    return Hubness(
        occurrences=occurrences,
        skewness=float((centred**3).mean() / spread**3) if spread else 0.0,
        chance_skewness=float((1 - 2 * p) / spread_at_random) if spread_at_random else 0.0,
        never=float((occurrences == 0).mean()),
    )


# -- the table of stores and representations ---------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shares(StoreScores[NeighboursResult]):
    """Relations of the neighbours of one store and representation: a mean share per measure."""

    per_query: Floats  # (N, M)
    hubness: Hubness
    hub_rows: Ints  # (N,), the most frequent neighbour first

    @property
    def shown(self) -> dict[str, str]:
        """The measures that can occur, and their labels."""
        return shown_measures(self.scores)


def shown_measures(means: Mapping[str, Mean]) -> dict[str, str]:
    """Return the measures that can occur, and their labels.

    If classes are unknown, no two objects share a class, so that labels do not mention classes.
    """
    possible = [name for name in MEASURES if means[name].value or means[name].chance]
    if {SAME_PART_SAME_CLASS, SAME_CLASS} & set(possible):
        return {name: name for name in possible}
    labels = {SAME_PART: PART, UNRELATED: "another part of another object"}
    return {name: labels.get(name, name) for name in possible if name not in (PART, WHOLE)}


def measure_stores(
    stores: Sequence[Store],
    representations: Sequence[str],
    k: int | None,
    *,
    results: Path,
    progress: Progress,
) -> tuple[list[Shares], list[Paired[Shares]]]:
    """Measure the relations of neighbours for every store and representation.

    Writes a result for each, with the shares of every query as Parquet, and one for each paired
    difference projected − encoded.

    Parameters
    ----------
    representations : sequence of str
        Empty selects the default ones of each store.
    k : int, optional
        Number of neighbours, by default `default_k`.

    Raises
    ------
    UsageError
        For stores without parts or vectors without a cosine.
    MismatchError
        For stores with different rows.
    """
    check_same_rows(stores)
    rows = rows_to_score(stores[0])
    relation = neighbour_relation(stores[0], rows)
    k = default_k(len(rows.ids)) if k is None else k
    shares = [
        _measure(store, name, rows, relation, k, results, Named(progress, store.label))
        for store, name in stores_and_vectors(stores, representations)
    ]
    differences = [
        _compare(projected, encoded, rows, results)
        for encoded in shares
        for projected in shares
        if encoded.store.path == projected.store.path
        and encoded.representation in ENCODED
        and projected.representation == "projected"
    ]
    return shares, differences


def neighbour_relation(store: Store, rows: Rows) -> NeighbourRelation:
    """Return the relations of rows. Raises `UsageError` for a store without parts."""
    table = store.rows[rows.ids]
    if "part" not in table.columns or "object" not in table.columns:
        raise UsageError(
            f"{store.title} has no parts of objects, so that its neighbours cannot be divided into "
            f"parts and wholes. Choose a store of view parts (--view parts)."
        )
    # An image without known objects counts as one object, an object without a class as a class.
    owner = pl.format("{}/{}", "image", pl.col("object").fill_null(""))
    kind = pl.coalesce(pl.format("class {}", "class"), pl.format("object {}", owner))
    numbered = table.select(
        owner.rank("dense").cast(pl.Int64).alias("object"),
        kind.rank("dense").cast(pl.Int64).alias("class"),
    )
    return NeighbourRelation(
        part=rows.targets,
        object=numbered["object"].to_numpy(),
        object_class=numbered["class"].to_numpy(),
        image=rows.images,
    )


def _measure(
    store: Store,
    representation: str,
    rows: Rows,
    relation: NeighbourRelation,
    k: int,
    results: Path,
    progress: Progress,
) -> Shares:
    clock = Stopwatch()
    features = read_vectors(store, representation, rows.ids)  # (N, D)
    neighbours = all_neighbours(features, k, rows=rows.ids, progress=progress)
    clock.lap("search")
    shares = relation.shares(neighbours)  # (N, M)
    hubs = hubness(neighbours)  # counts of each row as a neighbour
    top = hubs.top[:HUBS_KEPT]
    result = NeighboursResult(
        protocol=RecordedProtocol({"k": k, "similarity": "cosine, float32", "query": "left out"}),
        stores=Gallery(StoreReference.of(store)),
        representation=representation,
        scores=_means(shares, rows, relation.expected()),
        seconds=clock.laps,
        details={
            "hubness": hubs.to_json(),
            "hubs": [
                {"row": int(row), "occurrences": int(n)}
                for row, n in zip(rows.ids[top], hubs.occurrences[top], strict=True)
            ],
        },
        **rows.recorded(),
    )
    columns = {name: shares[:, i] for i, name in enumerate(MEASURES)}
    path = write_queries(results, result, rows, {**columns, "occurrences": hubs.occurrences})
    return Shares(store, representation, result, path, shares, hubs, rows.ids[hubs.top])


def _means(shares: Floats, rows: Rows, expected: Floats | None = None) -> dict[str, Mean]:
    return {
        name: bootstrap_means(
            shares[:, i],
            rows.images,
            rows.targets,
            rows.names,
            chance=None if expected is None else expected[:, i],
        ).overall
        for i, name in enumerate(MEASURES)
    }


def _compare(projected: Shares, encoded: Shares, rows: Rows, results: Path) -> Paired[Shares]:
    result = NeighboursDifference(
        protocol=encoded.result.protocol,
        stores=Gallery(StoreReference.of(encoded.store)),
        representation=f"{projected.representation} minus {encoded.representation}",
        scores=_means(projected.per_query - encoded.per_query, rows),
        seconds={},
        **rows.recorded(),
    )
    return Paired(projected, encoded, result, write_result(results, result))
