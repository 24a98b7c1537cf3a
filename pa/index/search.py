"""Top-k cosine search: from a query, a row or a vector, to its neighbours.

Shapes: B queries, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data.schema import BOX, Box
from pa.data.store.find import protocol
from pa.data.store.store import Store
from pa.errors import OutOfRangeError, UsageError
from pa.index.ranking import Ranked, nearest
from pa.index.stored import Index


@dataclass(frozen=True)
class Query:
    """What to search for: a row of the store, or a vector of the user's own.

    `row` alone is enough for a row: path, box and label are looked up. A `vector` (D,) comes from
    the store's own encoder; `path`, `box` (on `canvas`) and `canvas` are for the output and the
    figure.
    """

    row: int | None = None
    vector: npt.NDArray[Any] | None = field(default=None, repr=False, compare=False)
    path: str | None = None
    box: Box | None = None
    label: str | None = None
    canvas: Image.Image | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"row": self.row, "path": self.path, "box": self.box, "label": self.label}


@dataclass(frozen=True)
class Neighbour:
    """One answer. `rank` counts from 1; `cosine` is a float32's value; `box` lies on the canvas."""

    rank: int
    row: int
    cosine: float
    path: str
    box: Box
    label: str | None

    def to_json(self) -> dict[str, Any]:
        # The shortest decimal that gives the same float32.
        return {**vars(self), "cosine": float(str(np.float32(self.cosine)))}


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of one query, and what they were found with.

    `quality` is "exact" or says the recall of an approximate index; `store` is the store's title;
    `protocol` the rules by which the regions of view `parts` were cut, None for other views.
    """

    store: str
    fingerprint: str
    encoder: str
    representation: str
    factory: str
    quality: str
    query: Query
    neighbours: list[Neighbour]
    protocol: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "store": self.store,
            "protocol": self.protocol,
            "fingerprint": self.fingerprint,
            "encoder": self.encoder,
            "representation": self.representation,
            "index": {"factory": self.factory, "quality": self.quality, "metric": "cosine"},
            "query": self.query.to_json(),
            "neighbours": [neighbour.to_json() for neighbour in self.neighbours],
        }


def search(
    index: Index,
    queries: Sequence[Query | int],
    k: int = 24,
    *,
    include_self: bool = False,
    exclude_same_image: bool = False,
) -> list[SearchResult]:
    """Find the k rows with the largest cosine for each query (an int is a row id).

    A query that is a row is left out of its own answer unless `include_self`; with
    `exclude_same_image` all rows of its image are (for a vector: of the image with its `path`).
    Raises `OutOfRangeError` for a row id or a k beyond what is there, `UsageError` for a query
    without a usable vector.
    """
    if include_self and exclude_same_image:
        raise UsageError(
            "include_self and exclude_same_image contradict each other: the query is part of its "
            "own image. Give one of them."
        )
    asked = [_resolve(index.store, q if isinstance(q, Query) else Query(row=q)) for q in queries]
    if not asked:
        return []
    vectors = _vectors(index, asked)
    excluded = [
        _excluded(index, query, include_self=include_self, same_image=exclude_same_image)
        for query in asked
    ]
    _check_k(index, k, asked, excluded)
    ranked = nearest(index, vectors, excluded, k)
    _check_found(index, k, asked, ranked)
    return _results(index, asked, ranked)


# -- the question ----------------------------------------------------------------------------------


def _resolve(store: Store, query: Query) -> Query:
    """Complete a query by row with what the store knows of the row."""
    if (query.row is None) == (query.vector is None):
        raise UsageError("a query is either a row of the store or a vector: give one of them.")
    if query.row is None:
        return query
    if not 0 <= query.row < store.n_rows:
        raise OutOfRangeError(
            f"query id {query.row} is outside this store: it has rows 0 to {store.n_rows - 1} "
            f"({store.title})."
        )
    for bad in store.bad:
        if bad.first_row <= query.row <= bad.last_row:
            raise UsageError(
                f"query id {query.row} belongs to {bad.path}, which could not be decoded "
                f"({bad.reason}). Choose a row of another image."
            )
    fields = store.rows.row(query.row, named=True)
    return replace(query, path=fields["path"], box=_box(fields), label=fields["label"])


def _box(fields: dict[str, Any]) -> Box:
    return (fields[BOX[0]], fields[BOX[1]], fields[BOX[2]], fields[BOX[3]])


def _vectors(index: Index, asked: list[Query]) -> npt.NDArray[np.float32]:
    """The vectors of the queries, (B, D), float32 as stored or given."""
    out = np.empty((len(asked), index.info.dimension), dtype=np.float32)
    for place, query in enumerate(asked):
        if query.vector is not None:
            out[place] = _own_vector(index, query.vector)
    places = [place for place, query in enumerate(asked) if query.row is not None]
    rows = np.array([asked[place].row for place in places], dtype=np.int64)
    out[places] = index.store.read(index.info.representation, rows)
    for query, vector in zip(asked, out, strict=True):
        if not vector.any():
            raise UsageError(
                f"the {index.info.representation} vector of {_name(query)} is zero: its cosine to "
                f"anything is undefined. Choose another query."
            )
    return out


def _own_vector(index: Index, vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
    values = np.asarray(vector)
    if values.shape != (index.info.dimension,):
        found = "×".join(map(str, values.shape)) or "a single number"
        raise UsageError(
            f"the query vector has the shape {found}, {index.info.representation} of "
            f"{index.info.store} has {index.info.dimension}. Encode the query with the encoder of "
            f"the store, {index.store.encoder}."
        )
    if not np.isfinite(values).all():
        raise UsageError("the query vector holds NaN or infinity.")
    return values


def _name(query: Query) -> str:
    return f"query {query.path or 'vector'}" if query.row is None else f"query id {query.row}"


def _excluded(
    index: Index, query: Query, *, include_self: bool, same_image: bool
) -> npt.NDArray[np.int64]:
    """The row ids of the index that must not be among the answers."""
    if same_image:
        rows = _rows_of_image(index.store, query)
        return rows[index.holds(rows)]
    if query.row is None or include_self:
        return np.empty(0, dtype=np.int64)
    return np.array([query.row], dtype=np.int64)


def _rows_of_image(store: Store, query: Query) -> npt.NDArray[np.int64]:
    image, row = store.rows["image"], query.row
    if row is None:
        of_path = (store.rows["path"] == query.path).arg_true()
        if of_path.is_empty():
            return np.empty(0, dtype=np.int64)
        row = int(of_path[0])
    # Rows are ordered by image, so those of one image are a range.
    first = image.search_sorted(image[row], side="left")
    return np.arange(first, image.search_sorted(image[row], side="right"), dtype=np.int64)


def _check_k(
    index: Index, k: int, asked: list[Query], excluded: list[npt.NDArray[np.int64]]
) -> None:
    if k < 1:
        raise OutOfRangeError(f"k is {k}; it must be at least 1.")
    for query, rows in zip(asked, excluded, strict=True):
        available = index.n - len(rows)
        if k > available:
            without = f" without the {len(rows)} excluded for {_name(query)}" if len(rows) else ""
            raise OutOfRangeError(
                f"k is {k}, but the index of {index.info.store} · {index.info.representation} has "
                f"{available} rows{without}. Ask for k ≤ {available}."
            )


# -- the answer ------------------------------------------------------------------------------------


def _check_found(index: Index, k: int, asked: list[Query], ranked: list[Ranked]) -> None:
    for query, (rows, _) in zip(asked, ranked, strict=True):
        if len(rows) < k:
            raise OutOfRangeError(
                f"the approximate index {index.info.factory} finds only {len(rows)} neighbours of "
                f"{_name(query)}, k is {k}. Let it look further (for IVF: {_wider(index)}), or use "
                f"the exact index, SQfp16."
            )


def _wider(index: Index) -> str:
    return f"{index.info.factory.partition('@')[0]}@nprobe=…"


def _results(index: Index, asked: list[Query], ranked: list[Ranked]) -> list[SearchResult]:
    needed = np.unique(np.concatenate([rows for rows, _ in ranked]))
    table = index.store.rows[needed].select("row", "path", *BOX, "label")
    by_row = {fields["row"]: fields for fields in table.iter_rows(named=True)}
    cut_by = protocol(index.store)
    return [
        SearchResult(
            store=index.info.store,
            fingerprint=index.info.fingerprint,
            encoder=index.store.encoder,
            representation=index.info.representation,
            factory=index.info.factory,
            quality=index.info.quality,
            query=query,
            neighbours=[
                _neighbour(rank, float(cosine), by_row[row])
                for rank, (row, cosine) in enumerate(zip(rows.tolist(), values, strict=True), 1)
            ],
            protocol=cut_by,
        )
        for query, (rows, values) in zip(asked, ranked, strict=True)
    ]


def _neighbour(rank: int, cosine: float, fields: dict[str, Any]) -> Neighbour:
    return Neighbour(rank, fields["row"], cosine, fields["path"], _box(fields), fields["label"])
