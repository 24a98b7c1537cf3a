"""Find the nearest rows of a query, which is a row of the store or a vector.

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
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.errors import OutOfRangeError, UsageError
from pa.index.ranking import Ranked, nearest
from pa.index.stored import Index


@dataclass(frozen=True)
class Query:
    """What to search for: a row of the store, or a vector.

    For a row, `row` is enough: path, box and label are looked up. A `vector` (D,) comes from the
    encoder of the store; `path`, `canvas` and the `box` on it are for output and figures.
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
    """A row found by a search. `rank` counts from 1; `box` is in pixels of the canvas."""

    rank: int
    row: int
    cosine: float
    path: str
    box: Box
    label: str | None

    def to_json(self) -> dict[str, Any]:
        # The shortest decimal that reads back as the same float32.
        return {**vars(self), "cosine": float(str(np.float32(self.cosine)))}


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of one query, and the index that found them.

    `quality` is "exact" or the recall of an approximate index; `store` the title of the store;
    `protocol` that of view `parts`, None for other views.
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
    """Find the k rows with the largest cosine to each query.

    Parameters
    ----------
    queries : sequence of Query or int
        An int is a row id.
    include_self : bool
        Whether a query that is a row may be among its own neighbours.
    exclude_same_image : bool
        Exclude all rows of the query's image (for a vector: of the image with its `path`).

    Raises
    ------
    OutOfRangeError
        For a row id or a k beyond the rows of the index.
    UsageError
        For a query without a usable vector.
    """
    if include_self and exclude_same_image:
        raise UsageError(
            "include_self and exclude_same_image contradict each other: the query is part of its "
            "own image. Give one of them."
        )
    resolved = [_resolve(index.store, q if isinstance(q, Query) else Query(row=q)) for q in queries]
    if not resolved:
        return []
    vectors = _vectors(index, resolved)  # (B, D)
    excluded = [
        _excluded(index, query, include_self=include_self, same_image=exclude_same_image)
        for query in resolved
    ]
    if k < 1:
        raise OutOfRangeError(f"k is {k}; it must be at least 1.")
    for query, rows in zip(resolved, excluded, strict=True):
        if k > (available := index.n - len(rows)):
            without = f" without the {len(rows)} excluded for {_name(query)}" if len(rows) else ""
            raise OutOfRangeError(
                f"k is {k}, but the index of {index.info.store} · {index.info.representation} has "
                f"{available} rows{without}. Ask for k ≤ {available}."
            )
    ranked = nearest(index, vectors, excluded, k)  # (k,) row ids and cosines of each query
    for query, (rows, _) in zip(resolved, ranked, strict=True):
        if len(rows) < k:
            raise OutOfRangeError(
                f"the approximate index {index.info.factory} finds only {len(rows)} neighbours of "
                f"{_name(query)}, k is {k}. Let it search more lists (for IVF: "
                f"{index.info.factory.partition('@')[0]}@nprobe=…), or use the exact index, SQfp16."
            )
    return _results(index, resolved, ranked)


def check_stores(stores: Sequence[Store], representations: Sequence[str]) -> None:
    """Raise `UsageError` unless stores hold the same regions, with one vector per region."""
    for store in stores:
        if store.spec.rows["sha256"] != stores[0].spec.rows["sha256"]:
            raise UsageError(
                f"{stores[0].title} and {store.title} hold different regions, so one query id "
                f"refers to two of them. Extract both from the same split, view and --limit."
            )
        vectors = [name for name, shape in store.spec.representations.items() if len(shape) == 1]
        if store.view == "windows" and not set(representations) <= set(vectors):
            raise UsageError(
                f"{store.title} holds the tokens of large windows, for segmentation; a search "
                f"compares one vector per region. Extract regions, then search them:\n"
                f"  {store.command_for(view=VIEWS['grid'])}"
            )


def _resolve(store: Store, query: Query) -> Query:
    """Add path, box and label of a query that is a row."""
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
    x0, y0, x1, y1 = (fields[name] for name in BOX)
    return x0, y0, x1, y1


def _name(query: Query) -> str:
    return f"query {query.path or 'vector'}" if query.row is None else f"query id {query.row}"


def _vectors(index: Index, queries: list[Query]) -> npt.NDArray[np.float32]:
    """Return the vectors (B, D) of the queries, float32."""
    out = np.empty((len(queries), index.info.dimension), dtype=np.float32)  # (B, D)
    # Rows are read together, because every read opens shards.
    stored = {i: query.row for i, query in enumerate(queries) if query.row is not None}
    rows = np.array(list(stored.values()), dtype=np.int64)  # (B,) or fewer
    out[list(stored)] = index.store.read(index.info.representation, rows)
    for i, query in enumerate(queries):
        if query.row is None:
            vector = np.asarray(query.vector)  # (D,)
            if vector.shape != out[i].shape:
                shape = "×".join(map(str, vector.shape)) or "a single number"
                raise UsageError(
                    f"the query vector has the shape {shape}, {index.info.representation} of "
                    f"{index.info.store} has {index.info.dimension}. Encode the query with the "
                    f"encoder of the store, {index.store.encoder}."
                )
            if not np.isfinite(vector).all():
                raise UsageError("the query vector contains NaN or infinity.")
            out[i] = vector
        if not out[i].any():
            raise UsageError(
                f"the {index.info.representation} vector of {_name(query)} is zero: its cosine to "
                f"anything is undefined. Choose another query."
            )
    return out


def _excluded(
    index: Index, query: Query, *, include_self: bool, same_image: bool
) -> npt.NDArray[np.int64]:
    """Return the row ids of the index that must not be among the answers."""
    row = query.row
    if row is None and same_image:
        same_path = (index.store.rows["path"] == query.path).arg_true()
        row = int(same_path[0]) if len(same_path) else None
    if row is None or include_self:
        return np.empty(0, dtype=np.int64)
    if not same_image:
        return np.array([row], dtype=np.int64)
    # Rows are ordered by image, so that those of one image are a range.
    image = index.store.rows["image"]
    first, end = (image.search_sorted(image[row], side=side) for side in ("left", "right"))
    rows = np.arange(first, end, dtype=np.int64)
    return rows[index.holds(rows)]  # rows missing from the index do not reduce k


def _results(index: Index, queries: list[Query], ranked: list[Ranked]) -> list[SearchResult]:
    union = np.unique(np.concatenate([rows for rows, _ in ranked]))
    table = index.store.rows[union].select("row", "path", *BOX, "label")
    by_row = {fields["row"]: fields for fields in table.iter_rows(named=True)}
    info, parts_protocol = index.info, protocol(index.store)
    results = []
    for query, (rows, values) in zip(queries, ranked, strict=True):
        neighbours = []
        for rank, (row, cosine) in enumerate(zip(rows.tolist(), values, strict=True), 1):
            path, label = by_row[row]["path"], by_row[row]["label"]
            neighbours.append(Neighbour(rank, row, float(cosine), path, _box(by_row[row]), label))
        results.append(
            SearchResult(
                info.store,
                info.fingerprint,
                index.store.encoder,
                info.representation,
                info.factory,
                info.quality,
                query,
                neighbours,
                parts_protocol,
            )
        )
    return results
