"""Part against whole: relations of the nearest neighbours of the part patches of stores.

The paper shows examples (Figure 4): projected representations retrieve wholes, encoded ones parts.
Here it is a share of all neighbours, with an interval.

Shapes: N scored rows, k neighbours, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.evaluate import rows as tables
from pa.evaluate.bootstrap import Mean, bootstrap_means
from pa.evaluate.intervals import Floats, Ints
from pa.evaluate.neighbours import (
    MEASURES,
    PART,
    SAME_CLASS,
    SAME_PART,
    SAME_PART_SAME_CLASS,
    UNRELATED,
    WHOLE,
    Hubness,
    NeighbourRelation,
    all_neighbours,
    default_k,
    hubness,
)
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import (
    Gallery,
    RecordedProtocol,
    RowCounts,
    StoreReference,
    TargetSelection,
)
from pa.evaluate.results import NeighboursDifference, NeighboursResult
from pa.evaluate.rows import (
    ENCODED,
    Paired,
    Rows,
    check_same_rows,
    read_vectors,
    rows_to_score,
    stores_and_vectors,
    write_queries,
)
from pa.progress import Named, Progress, Stopwatch

HUBS_KEPT = 100  # most frequent neighbours listed in a result; figures show 20


@dataclass(frozen=True, eq=False)
class Shares(tables.Scored[NeighboursResult]):
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
        selection=TargetSelection(rows.target),
        counts=RowCounts(**rows.counts()),
        scores=_means(shares, rows, relation.expected()),
        seconds=clock.laps,
        details={
            "hubness": hubs.to_json(),
            "hubs": [
                {"row": int(row), "occurrences": int(n)}
                for row, n in zip(rows.ids[top], hubs.occurrences[top], strict=True)
            ],
        },
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
        selection=TargetSelection(rows.target),
        counts=RowCounts(**rows.counts()),
        scores=_means(projected.per_query - encoded.per_query, rows),
        seconds={},
    )
    return Paired(projected, encoded, result, write_result(results, result))
