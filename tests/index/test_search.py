"""Search against an exhaustive numpy search: rows, order, ties, cosines, exclusions, errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pa.data.store.reader import Store
from pa.errors import OutOfRangeError, UsageError
from pa.index.build import build, open_or_build
from pa.index.search import Query, search
from pa.index.stored import Index

Floats = npt.NDArray[np.float32]


def exhaustive(
    vectors: Floats, query: Floats, without: list[int], k: int
) -> tuple[list[int], Floats]:
    """Top k by float64 cosine, ties by row id."""
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    cosines = unit @ (query.astype(np.float64) / np.linalg.norm(query.astype(np.float64)))
    cosines = cosines.astype(np.float32)
    cosines[without] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:k]
    return order.tolist(), cosines[order]


@pytest.fixture(params=["SQfp16", "Flat"])
def index(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Index:
    return build(store, "pooled", tmp_path / "indexes", request.param)


@pytest.mark.parametrize("k", [1, 24, 489])
def test_answers_are_those_of_exhaustive_search(index: Index, vectors: Floats, k: int) -> None:
    queries = [0, 7, 110, 333, 489]
    for query, result in zip(queries, search(index, queries, k), strict=True):
        rows, cosines = exhaustive(vectors, vectors[query], [query], k)
        actual = np.array([n.cosine for n in result.neighbours], dtype=np.float32)
        assert np.abs(actual - cosines).max() < 1e-6
        assert [n.rank for n in result.neighbours] == list(range(1, k + 1))
        # Float64 sums in another order may swap cosines that are equal to seven digits.
        for current, reference, cosine in zip(result.neighbours, rows, cosines, strict=True):
            assert current.row == reference or abs(current.cosine - cosine) < 1e-6


def test_equal_vectors_are_ordered_by_id(index: Index) -> None:
    result = search(index, [7], 20)[0]
    assert [n.row for n in result.neighbours] == list(range(100, 120))
    assert all(n.cosine == pytest.approx(1, abs=1e-6) for n in result.neighbours)


def test_half_precision_index_equals_flat(store: Store, tmp_path: Path) -> None:
    answers = [
        search(build(store, "pooled", tmp_path / "i", factory), list(range(0, 490, 7)), 24)
        for factory in ("SQfp16", "Flat")
    ]
    for half, flat in zip(*answers, strict=True):
        assert half.neighbours == flat.neighbours


def test_include_self(index: Index) -> None:
    first = search(index, [60], 3, include_self=True)[0].neighbours[0]
    assert (first.row, first.cosine) == (60, pytest.approx(1, abs=1e-6))


def test_exclude_same_image(index: Index, vectors: Floats) -> None:
    result = search(index, [60], 24, exclude_same_image=True)[0]
    rows, _ = exhaustive(vectors, vectors[60], list(range(49, 98)), 24)
    assert [n.row for n in result.neighbours] == rows
    assert not {n.path for n in result.neighbours} & {"001.png"}


def test_external_vector_is_searched(index: Index, vectors: Floats) -> None:
    query = Query(vector=vectors[200] * 3, path="mine.png")
    actual = search(index, [query], 2)[0]
    assert actual.neighbours[0].row == 200
    assert actual.query.row is None


def test_result_says_what_it_is(index: Index, store: Store) -> None:
    result = search(index, [50], 2)[0].to_json()
    assert result["store"] == store.title
    assert result["fingerprint"] == store.fingerprint
    assert result["index"]["quality"] == "exact"
    assert result["query"] == {
        "row": 50,
        "path": "001.png",
        "box": (28, 0, 84, 56),
        "label": "class1",
    }
    assert set(result["neighbours"][0]) == {"rank", "row", "cosine", "path", "box", "label"}


def test_bad_images_and_zero_vectors_are_never_found(
    make_store: Callable[..., Store], vectors: Floats, tmp_path: Path
) -> None:
    vectors[300] = 0
    store = make_store(vectors, bad_images=(2, 5), name="with-bad")
    index = build(store, "pooled", tmp_path / "i")
    assert (index.info.n, index.info.n_bad, index.info.n_zero) == (490 - 98 - 1, 98, 1)
    everything = search(index, [0], index.n - 1)[0]
    actual = {n.row for n in everything.neighbours}
    assert actual == set(np.flatnonzero(store.valid).tolist()) - {0, 300}
    with pytest.raises(UsageError, match=r"query id 98 belongs to 002.png, .* \(is torn\)"):
        search(index, [98])
    with pytest.raises(UsageError, match="the pooled vector of query id 300 is zero"):
        search(index, [300])


@pytest.mark.parametrize(
    ("query", "k", "error", "message"),
    [
        (490, 24, OutOfRangeError, "query id 490 is outside this store: it has rows 0 to 489"),
        (-1, 24, OutOfRangeError, "query id -1 is outside"),
        (3, 0, OutOfRangeError, "k is 0; it must be at least 1"),
        (3, 490, OutOfRangeError, r"has 489 rows without the 1 excluded .* Ask for k ≤ 489"),
        (Query(vector=np.ones(5)), 1, UsageError, "has the shape 5, pooled of .* has 24"),
        (Query(vector=np.full(24, np.nan)), 1, UsageError, "the query vector contains NaN"),
        (Query(vector=np.zeros(24)), 1, UsageError, "is zero: its cosine to anything is undefined"),
        (Query(), 1, UsageError, "either a row of the store or a vector"),
    ],
)
def test_errors(
    index: Index, query: Query | int, k: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        search(index, [query], k)


def test_contradicting_options(index: Index) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        search(index, [1], include_self=True, exclude_same_image=True)


def test_first_use_builds_and_second_use_opens(store: Store, tmp_path: Path) -> None:
    first = open_or_build(store, "pooled", tmp_path / "i")
    assert first.built
    assert first.reason == "first use"
    assert not open_or_build(store, "pooled", tmp_path / "i").built
