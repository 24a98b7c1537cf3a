"""Where exactness, growth of the search and clear refusals are put to the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from pa.data.store import shards
from pa.data.store.reader import Store
from pa.data.vectors import unit_vectors
from pa.errors import FingerprintError, MissingError, OutOfRangeError, UsageError, VerificationError
from pa.figures.neighbours import draw, panels_of
from pa.figures.style import Target
from pa.index.build import build, open_index
from pa.index.ranking import cosines, error_bound, nearest
from pa.index.search import Query, search
from pa.index.stored import IndexKey, find_indexes
from pa.progress import Silent

Floats = npt.NDArray[np.float32]
MakeStore = Callable[..., Store]


def crowd(n: int, spread: float, seed: int = 0) -> Floats:
    """Return vectors whose cosines differ by less than the fp16 resolution."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=32)
    return (centre + spread * generator.normal(size=(n, 32))).astype(np.float32)


@pytest.mark.parametrize("factory", ["SQfp16", "Flat"])
def test_search_is_exact_for_rows_equal_in_fp16(
    make_store: MakeStore, tmp_path: Path, factory: str
) -> None:
    vectors = crowd(490, 3e-3)
    index = build(make_store(vectors, storage="fp32"), "pooled", tmp_path, factory)
    for query in (0, 100, 489):
        exact = cosines(vectors[query], vectors)
        exact[query] = -np.inf
        order = np.argsort(-exact, kind="stable")[:5]
        actual = search(index, [query], 5)[0].neighbours
        assert [n.row for n in actual] == order.tolist()
        assert [np.float32(n.cosine) for n in actual] == exact[order].tolist()


@pytest.mark.parametrize("half", [True, False])
def test_scores_of_faiss_stay_within_the_bound(
    make_store: MakeStore, tmp_path: Path, half: bool
) -> None:
    vectors = crowd(490, 0.5)
    store = make_store(vectors, storage="fp32")
    index = build(store, "pooled", tmp_path, "SQfp16" if half else "Flat")
    scores, rows = index.candidates(unit_vectors(vectors[:9]), 490)
    for query, score, values in zip(vectors, scores, rows, strict=False):
        error = np.abs(score - cosines(query, vectors[values])).max()
        assert error < error_bound(32, half_gallery=half)


def test_cosines_are_independent_of_batch() -> None:
    vectors = crowd(50, 0.5)
    together = cosines(vectors[0], vectors)
    alone = [cosines(vectors[0], vectors[i : i + 1])[0] for i in range(50)]
    assert together.tolist() == alone
    assert together[0] == 1


def test_tiny_and_huge_vectors_have_a_direction() -> None:
    vectors = np.array([[3e38, 4e38 / 2], [3e-38, 2e-38], [0, 0]], dtype=np.float32)
    expected = np.array([3, 2]) / np.sqrt(13)
    unit = unit_vectors(vectors)
    np.testing.assert_allclose(unit[:2], [expected, expected], rtol=1e-5)
    assert not unit[2].any()


def test_many_equal_rows_are_ordered_by_id(make_store: MakeStore, tmp_path: Path) -> None:
    index = build(make_store(np.tile(crowd(1, 1.0), (490, 1))), "pooled", tmp_path)
    assert [n.row for n in search(index, [300], 4)[0].neighbours] == [0, 1, 2, 3]


@pytest.mark.parametrize("storage", ["bf16", "fp32"])
def test_storage_formats_are_searched(make_store: MakeStore, tmp_path: Path, storage: str) -> None:
    store = make_store(crowd(98, 0.5), storage=storage, name=storage)
    stored = store.read("pooled")
    actual = search(build(store, "pooled", tmp_path), [3], 1)[0].neighbours[0]
    assert actual.cosine == np.sort(cosines(stored[3], stored))[-2]


def test_batch_equals_single_queries(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path)
    together = search(index, range(0, 490, 40), 200)
    assert together == [search(index, [query], 200)[0] for query in range(0, 490, 40)]
    assert search(index, []) == []


def test_hnsw_is_measured_and_searched(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path, "HNSW16@efSearch=200")
    assert index.info.quality == "recall@24 1.000 on 256 queries"
    exact = build(store, "pooled", tmp_path)
    assert [n.cosine for n in search(index, [9], 24)[0].neighbours] == [
        n.cosine for n in search(exact, [9], 24)[0].neighbours
    ]
    (exact.path / "index.json").write_text("{}")
    approximate, damaged = find_indexes(tmp_path)
    assert approximate == (index.path, index.info)
    assert damaged[0] == exact.path
    assert isinstance(damaged[1], VerificationError)


def test_approximate_index_with_few_candidates_returns_fewer(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path, "IVF8,Flat")
    ranked = nearest(index, store.read("pooled", [0]), [np.array([0])], 480)
    assert 0 < len(ranked[0][0]) < 480
    with pytest.raises(OutOfRangeError, match=r"IVF8,Flat finds only \d+ .* IVF8,Flat@nprobe=…"):
        search(index, [0], 480)


def test_own_image_that_is_in_the_store_can_be_excluded(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path)
    query = Query(vector=store.read("pooled", [60])[0], path="001.png")
    actual = search(index, [query], 24, exclude_same_image=True)[0].neighbours
    assert {n.path for n in actual} & {"001.png"} == set()
    other = search(index, [replace(query, path="no.png")], 1, exclude_same_image=True)[0]
    assert other.neighbours[0].row == 60


def test_k_beyond_what_is_left_of_other_images(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path)
    assert len(search(index, [0], 441, exclude_same_image=True)[0].neighbours) == 441
    with pytest.raises(OutOfRangeError, match=r"441 rows without the 49 .* Ask for k ≤ 441"):
        search(index, [0], 442, exclude_same_image=True)


@pytest.mark.parametrize("factory", ["SQfp16", "IVF8,Flat"])
def test_vectors_that_are_not_finite(
    store: Store, tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store.plan[1].start + 3

    target = store.read("pooled", [row])[0]

    def with_nan(store: Store, values: Floats) -> Floats:
        actual = shards.from_disk(values, "fp16").astype(np.float32)
        actual[(actual == target).all(axis=1)] = np.nan
        return actual

    monkeypatch.setattr(Store, "from_disk", with_nan)
    with pytest.raises(
        UsageError, match=rf"contains NaN or infinity in 1 rows: {row}\. `pa verify`"
    ):
        build(store, "pooled", tmp_path / "i", factory)
    assert not list((tmp_path / "i").rglob("*.partial"))


def test_index_of_another_format_is_refused(store: Store, tmp_path: Path) -> None:
    info = build(store, "pooled", tmp_path).path / "index.json"
    info.write_text(info.read_text().replace('"format": 2', '"format": 9'))
    with pytest.raises(FingerprintError, match="index format 9, this version reads 2"):
        open_index(store, "pooled", tmp_path)


def test_swapped_index_is_refused(store: Store, tmp_path: Path) -> None:
    key = IndexKey(store.fingerprint, "pooled", "Flat")
    build(store, "pooled", tmp_path).path.rename(key.directory(tmp_path))
    with pytest.raises(FingerprintError, match="factory SQfp16 where Flat was expected"):
        open_index(store, "pooled", tmp_path, "Flat")
    with pytest.raises(MissingError, match=r"no index at .*SQfp16"):
        open_index(store, "pooled", tmp_path)


def test_factory_string_becomes_file_name() -> None:
    directory = IndexKey("ab" * 32, "cls", "IVF8(HNSW32),PQ4/x").directory("root")
    assert directory == Path("root/abababababababab/cls/IVF8%28HNSW32%29,PQ4%2Fx")


def test_figures_that_cannot_be_drawn(store: Store, tmp_path: Path) -> None:
    index, target = build(store, "pooled", tmp_path), Target([tmp_path / "f.png"])
    (result,) = search(index, [1], 3)
    with pytest.raises(UsageError, match=r"found no suffix\."):
        draw(panels_of([(store, result)], None), Target([tmp_path / "figure"]))
    with pytest.raises(UsageError, match="at least one search result: found none"):
        draw([], target)
    (direct,) = search(index, [Query(vector=store.read("pooled", [1])[0])], 3)
    with pytest.raises(UsageError, match=r"the query has no picture"):
        draw(panels_of([(store, direct)], None), target)


class Recorder(Silent):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.seen.append(total)

    def advance(self, n: int) -> None:
        self.seen.append(n)

    def stop(self) -> None:
        self.seen.append("stop")


def test_progress_ends_also_where_the_build_fails(store: Store, tmp_path: Path) -> None:
    whole, broken = Recorder(), Recorder()
    build(store, "pooled", tmp_path, progress=whole)
    assert whole.seen == [490, *(shard.n_rows for shard in store.plan), "stop"]
    with h5py.File(store.shard_path(store.plan[1]), "r+") as file:
        file["pooled"][3, 0] = np.nan
    with pytest.raises(VerificationError):
        build(store, "pooled", tmp_path, progress=broken)
    assert broken.seen == [490, store.plan[0].n_rows, "stop"]
