"""Many queries at once, and few reads for one: both leave the answers as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from pa.data.store.reader import Store
from pa.data.vectors import unit_vectors
from pa.index import ranking, stored
from pa.index.build import build
from pa.index.search import search

Floats = npt.NDArray[np.float32]
MakeStore = Callable[..., Store]


@pytest.fixture
def quantised(vectors: Floats) -> faiss.IndexScalarQuantizer:
    index = faiss.index_factory(24, "SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.add(unit_vectors(vectors))
    return index


@pytest.mark.parametrize("block", [1, 7, 100, 490, 1000])
@pytest.mark.parametrize("k", [1, 24, 490])
def test_scan_equals_full_sort(
    quantised: faiss.IndexScalarQuantizer,
    vectors: Floats,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    k: int,
) -> None:
    monkeypatch.setattr(stored, "SCAN_ROWS", block)
    unit = unit_vectors(vectors)
    scores, rows = stored.scan(quantised, unit[:20], k)
    products = unit[:20] @ unit.astype(np.float16).astype(np.float32).T
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, rows, 1), scores, atol=1e-6)
    assert all(len(set(values)) == k for values in rows.tolist())


def test_batch_results_equal_single_results(
    make_store: MakeStore, vectors: Floats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows left out of the index, so that positions differ from row ids."""
    store = make_store(vectors, bad_images=(3,), name="with-bad")
    index = build(store, "pooled", tmp_path)
    queries = np.flatnonzero(store.valid)[: 2 * stored.MANY].tolist()
    scanned: list[int] = []
    scan = stored.scan

    def counting(faiss_index: object, asked: Floats, k: int) -> object:
        scanned.append(len(asked))
        return scan(faiss_index, asked, k)

    monkeypatch.setattr(stored, "scan", counting)
    together = search(index, queries, 24)
    assert scanned[0] == 2 * stored.MANY
    scanned.clear()
    assert together == [search(index, [query], 24)[0] for query in queries]
    assert scanned == []


def exhaustive(vectors: Floats, query: int, k: int) -> list[int]:
    cosines = ranking.cosines(vectors[query], vectors)
    cosines[query] = -np.inf
    return np.argsort(-cosines, kind="stable")[:k].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("factory", ["SQfp16", "Flat", "IVF4,Flat@nprobe=4", "IVF4,SQfp16@nprobe=4"])  # fmt: skip
@pytest.mark.parametrize("spread", [3e-3, 0.5])
def test_possible_neighbours_alone_are_read(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factory: str,
    spread: float,
) -> None:
    """Cosines far apart: little more than k rows are read. Close: as many as it takes."""
    generator = np.random.default_rng(5)
    centre = generator.normal(size=32)
    vectors = (centre + spread * generator.normal(size=(490, 32))).astype(np.float32)
    store = make_store(vectors, name="crowd", storage="fp32")
    index = build(store, "pooled", tmp_path, factory)
    asked: list[int] = []
    read = Store.read

    def counting(self: Store, representation: str, rows: npt.NDArray[np.int64]) -> Floats:
        asked.append(len(rows))
        return read(self, representation, rows)

    monkeypatch.setattr(Store, "read", counting)
    actual = [n.row for n in search(index, [100], 10)[0].neighbours]
    assert actual == exhaustive(vectors, 100, 10)
    assert asked[0] == 1  # the query itself
    if spread > 0.1:
        assert 10 <= asked[1] <= 20
    elif "SQfp16" in factory:
        assert max(asked) > 60


@pytest.mark.parametrize(
    ("factory", "known"),
    [
        ("SQfp16", True),
        ("Flat", True),
        ("IVF16,Flat@nprobe=3", True),
        ("IVF16,SQfp16", True),
        ("IVF16_HNSW8,Flat", False),
        ("PCA8,Flat", False),
        ("IVF16,PQ4x4", False),
        ("HNSW16", False),
    ],
)
def test_coarse_scores_have_no_bound(
    store: Store, tmp_path: Path, factory: str, known: bool
) -> None:
    index = build(store, "pooled", tmp_path, factory)
    assert (ranking.score_error_bound(index) is not None) is known


@pytest.mark.parametrize("factory", ["SQfp16", "Flat", "IVF16,Flat@nprobe=16", "IVF16,SQfp16@nprobe=16"])  # fmt: skip
def test_scores_stay_within_the_bound(
    store: Store, vectors: Floats, tmp_path: Path, factory: str
) -> None:
    index = build(store, "pooled", tmp_path, factory)
    bound = ranking.score_error_bound(index)
    assert bound is not None
    scores, rows = index.candidates(unit_vectors(vectors[:40]), 490)
    for query, score, values in zip(vectors, scores, rows, strict=False):
        assert np.abs(score - ranking.cosines(query, vectors[values])).max() < bound
