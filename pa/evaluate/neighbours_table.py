"""Part against whole, from stores: what the nearest neighbours of every part patch are.

The paper shows it by example (Figure 4): projected representations retrieve wholes, encoded ones
parts. Here it is a share of all neighbours, with an interval.

Shapes: N rows that are scored, k neighbours, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.store.reader import Store
from pa.data.tables import write_parquet
from pa.errors import UsageError
from pa.evaluate.bootstrap import Mean, bootstrap_means
from pa.evaluate.neighbours import (
    MEASURES,
    PART,
    SAME_CLASS,
    SAME_PART,
    SAME_PART_SAME_CLASS,
    UNRELATED,
    WHOLE,
    Hubness,
    Kinship,
    all_neighbours,
    default_k,
    hubness,
)
from pa.evaluate.results import Result, describe_store, write_result
from pa.evaluate.rows import (
    ENCODED,
    Rows,
    check_same_rows,
    default_representations,
    read_vectors,
    require_vector,
    rows_to_score,
)
from pa.evaluate.stopwatch import Stopwatch
from pa.progress import Named, Progress

TASK, DIFFERENCE_TASK = "neighbours", "neighbours-difference"
HUBS_KEPT = 100

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shares:
    """What the neighbours are, for one store and representation: a mean share per measure."""

    store: Store
    representation: str
    per_query: Floats
    means: dict[str, Mean]
    hubness: Hubness
    hub_rows: Ints
    result: Result
    path: Path

    @property
    def shown(self) -> dict[str, str]:
        """The measures that can occur here, and how to call them."""
        return shown_measures(self.means)


@dataclass(frozen=True, eq=False)
class Shift:
    """Projected minus encoded of one store, query by query: a mean difference per measure."""

    store: Store
    first: str
    second: str
    means: dict[str, Mean]
    path: Path


def shown_measures(means: Mapping[str, Mean]) -> dict[str, str]:
    """The measures that can occur, and how to call them.

    Where classes are not known, no two objects share one: then there is no other class either.
    """
    there = {name for name, mean in means.items() if mean.value or mean.chance}
    if {SAME_PART_SAME_CLASS, SAME_CLASS} & there:
        return {name: name for name in MEASURES if name in there}
    plain = {SAME_PART: PART, UNRELATED: "another part of another object"}
    return {
        name: plain.get(name, name)
        for name in MEASURES
        if name in there and name not in (PART, WHOLE)
    }


def measure_stores(
    stores: Sequence[Store],
    representations: Sequence[str],
    k: int | None,
    *,
    results: Path,
    progress: Progress,
) -> tuple[list[Shares], list[Shift]]:
    """Measure every store with every representation (of those it has, where none is named).

    `k` None is `default_k`. Writes a result for each, with the shares of every query as Parquet
    beside it, and one for each paired difference projected − encoded. Raises `UsageError` for
    stores without parts, and what `check_same_rows`, `rows_to_score` and `all_neighbours` raise.
    """
    check_same_rows(stores)
    rows = rows_to_score(stores[0])
    kin = kinship(stores[0], rows)
    k = default_k(len(rows.ids)) if k is None else k
    work = [
        (store, name)
        for store in stores
        for name in representations or default_representations(store)
    ]
    for store, name in work:
        require_vector(store, name)
    found = [_measure(store, name, rows, kin, k, results, progress) for store, name in work]
    shifts = [
        _shift(projected, encoded, rows, k, results)
        for encoded in found
        for projected in found
        if encoded.store.path == projected.store.path
        and encoded.representation in ENCODED
        and projected.representation == "projected"
    ]
    return found, shifts


def kinship(store: Store, rows: Rows) -> Kinship:
    """What the rows are to each other. Raises `UsageError` for a store without parts."""
    table = store.rows[rows.ids]
    if "part" not in table.columns or "object" not in table.columns:
        raise UsageError(
            f"{store.title} knows no parts of objects: its neighbours cannot be told apart into "
            f"parts and wholes. Choose a store of view parts (--view parts)."
        )
    # Without a known object, an image shows one; without a known class, each object is one.
    owner = pl.format("{}/{}", "image", pl.col("object").fill_null(""))
    kind = pl.coalesce(pl.format("class {}", "class"), pl.format("object {}", owner))
    numbered = table.select(owner.alias("object"), kind.alias("class"))
    return Kinship(
        part=rows.targets,
        object=_numbers(numbered["object"]),
        object_class=_numbers(numbered["class"]),
        image=rows.images,
    )


def _numbers(names: pl.Series) -> Ints:
    numbers: Ints = names.rank("dense").to_numpy().astype(np.int64)
    return numbers


def _measure(
    store: Store,
    representation: str,
    rows: Rows,
    kinship: Kinship,
    k: int,
    results: Path,
    progress: Progress,
) -> Shares:
    clock = Stopwatch()
    features = read_vectors(store, representation, rows.ids)
    neighbours = all_neighbours(features, k, rows=rows.ids, progress=Named(progress, store.label))
    clock.lap("search")
    shares = kinship.shares(neighbours)
    means = _means(shares, rows, kinship.expected())
    hubs = hubness(neighbours)
    top = hubs.top[:HUBS_KEPT]
    result = Result(
        task=TASK,
        protocol={"k": k, "similarity": "cosine, float32", "query": "left out"},
        stores={"gallery": describe_store(store)},
        representation=representation,
        selection={"target": rows.target},
        counts=rows.counts(),
        scores={name: mean.to_json() for name, mean in means.items()},
        seconds=clock.laps,
        details={
            "hubness": hubs.to_json(),
            "hubs": [
                {"row": int(row), "occurrences": int(n)}
                for row, n in zip(rows.ids[top], hubs.occurrences[top], strict=True)
            ],
        },
    )
    path = result.path(results)
    columns: dict[str, Any] = {"row": rows.ids, "image": rows.images, "label": rows.labels}
    columns |= {name: shares[:, place] for place, name in enumerate(MEASURES)}
    columns["occurrences"] = hubs.occurrences
    write_parquet(path.with_suffix(".parquet"), pl.DataFrame(columns))
    write_result(results, result)
    return Shares(store, representation, shares, means, hubs, rows.ids[hubs.top], result, path)


def _means(shares: Floats, rows: Rows, expected: Floats | None = None) -> dict[str, Mean]:
    return {
        name: bootstrap_means(
            shares[:, place],
            rows.images,
            rows.targets,
            rows.names,
            chance=None if expected is None else expected[:, place],
        ).overall
        for place, name in enumerate(MEASURES)
    }


def _shift(projected: Shares, encoded: Shares, rows: Rows, k: int, results: Path) -> Shift:
    means = _means(projected.per_query - encoded.per_query, rows)
    result = Result(
        task=DIFFERENCE_TASK,
        protocol=encoded.result.protocol,
        stores={"gallery": describe_store(encoded.store)},
        representation=f"{projected.representation} minus {encoded.representation}",
        selection={"target": rows.target},
        counts=rows.counts(),
        scores={name: mean.to_json() for name, mean in means.items()},
        seconds={},
    )
    path = write_result(results, result)
    return Shift(encoded.store, projected.representation, encoded.representation, means, path)
