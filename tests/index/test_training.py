"""Training: the sample, FAISS's warnings, stores that are too small, what index.json says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import faiss
import h5py
import numpy as np
import numpy.typing as npt
import pytest

from pa.data.store.reader import Store
from pa.errors import UsageError, VerificationError
from pa.index import training
from pa.index.build import build, open_index
from pa.index.stored import Training
from pa.index.training import read_sample, sample_rows
from pa.progress import Silent

Floats = npt.NDArray[np.float32]
MakeStore = Callable[..., Store]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("block", [7, 100, 8192])
def test_sample_is_seeded_and_in_row_order(
    store: Store, vectors: Floats, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(training, "_BLOCK_ROWS", block)
    rows = np.sort(np.random.default_rng(0).choice(490, 60, replace=False))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(read_sample(store, "pooled", 60), unit[rows], atol=1e-6)
    np.testing.assert_allclose(read_sample(store, "pooled", 1000), unit, atol=1e-6)


def test_sample_is_read_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = Store.read

    def counting(self: Store, representation: str, rows: npt.NDArray[np.int64]) -> Floats:
        asked.append(len(rows))
        assert (np.diff(rows) > 0).all()
        return read(self, representation, rows)

    monkeypatch.setattr(training, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(Store, "read", counting)
    assert len(read_sample(store, "pooled", 120)) == 120
    assert asked == [50, 50, 20]


def test_bad_and_zero_rows_do_not_train(
    make_store: MakeStore, vectors: Floats, tmp_path: Path
) -> None:
    vectors[300] = 0
    store = make_store(vectors, bad_images=(2, 5), name="with-bad")
    sample = read_sample(store, "pooled", 490)
    assert len(sample) == 490 - 98 - 1
    np.testing.assert_allclose(np.linalg.norm(sample, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("centroids", "dimension", "rows"),
    [
        (16, 768, 256 * 16),  # all that k-means uses
        (1024, 768, 2**29 // 3072),  # half a GiB
        (8192, 768, 39 * 8192),  # more, where FAISS advises more …
        (65536, 768, 2**31 // 3072),  # … up to two GiB
        (256, 2**31, 1),
    ],
)
def test_sample_size_is_limited(centroids: int, dimension: int, rows: int) -> None:
    assert sample_rows(centroids, dimension) == rows


# Whose training runs k-means, with the most centroids of one.
TRAINED = {
    "IVF16,Flat": 16,
    "IVF16,SQ8": 16,
    "PQ4x4": 16,
    "PQ4": 256,
    "IVF16,PQ4x4": 16,
    "IVF16,PQ4": 256,
    "IVF16,PQ4x4fs": 16,
    "OPQ4_16,IVF16,PQ4x4": 256,
    "PCA8,IVF16,Flat": 16,
    "HNSW16_PQ4": 256,
    "RQ3x4": 16,
    "PRQ2x2x4": 16,
    "IVF16,PQ4x4,RFlat": 16,
}


@pytest.mark.parametrize(("factory", "centroids"), TRAINED.items())
def test_few_rows_are_noted_once(
    store: Store,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    factory: str,
    centroids: int,
) -> None:
    notes = Notes()
    index = build(store, "pooled", tmp_path, factory, progress=notes)
    assert capfd.readouterr() == ("", "")
    advised = 39 * centroids
    assert index.info.training == Training(rows=490, seed=0, advised=advised)
    assert notes.notes == [
        f"training {factory} on 490 rows of {store.title}, fewer than the {advised} that FAISS "
        f"advises"
    ]
    assert open_index(store, "pooled", tmp_path, factory).info == index.info


def test_codes_are_not_trained_for_l2_searches(store: Store, tmp_path: Path) -> None:
    """Polysemous training permutes the centroids: without it they lie as k-means leaves them."""
    plain, permuted = (
        faiss.index_factory(24, factory, faiss.METRIC_INNER_PRODUCT)
        for factory in ("PQ2x6np", "PQ2x6")
    )
    for index in (plain, permuted):
        index.pq.cp.min_points_per_centroid = 1
        index.train(read_sample(store, "pooled", 490))
    built = faiss.read_index(str(build(store, "pooled", tmp_path, "PQ2x6").path / "index.faiss"))
    actual = faiss.vector_to_array(built.pq.centroids)
    assert np.array_equal(actual, faiss.vector_to_array(plain.pq.centroids))
    assert not np.array_equal(actual, faiss.vector_to_array(permuted.pq.centroids))


def test_l2_index_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"refuses the index factory 'PQ2x6@ht=4': .*METRIC_L2"):
        build(store, "pooled", tmp_path, "PQ2x6@ht=4")


def test_faiss_itself_does_warn(vectors: Floats, capfd: pytest.CaptureFixture[str]) -> None:
    """What the test above would see if the warnings were not turned into a note."""
    faiss.index_factory(24, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT).train(vectors)
    assert "please provide at least 624 training points" in capfd.readouterr().err


def test_enough_rows_give_no_note(store: Store, tmp_path: Path) -> None:
    notes = Notes()
    index = build(store, "pooled", tmp_path, "IVF8,Flat", progress=notes)
    assert notes.notes == [f"training IVF8,Flat on 490 rows of {store.title}"]
    fields = json.loads((index.path / "index.json").read_text())
    assert fields["training"] == {"rows": 490, "seed": 0, "advised": 312}


@pytest.mark.parametrize("factory", ["SQfp16", "Flat", "HNSW16"])
def test_empty_training_set_is_refused(store: Store, tmp_path: Path, factory: str) -> None:
    notes = Notes()
    assert build(store, "pooled", tmp_path, factory, progress=notes).info.training is None
    assert notes.notes == []


def test_scalar_quantiser_has_no_centroids(store: Store, tmp_path: Path) -> None:
    trained = build(store, "pooled", tmp_path, "SQ8").info.training
    assert trained == Training(rows=490, seed=0, advised=0)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF50,Flat", r"IVF50,Flat divides the rows into 50 lists, but toy/.* has 49 usable pooled rows: at most 49 .* IVF1 has the 39 rows per list"),
        ("IVF64,PQ4x4", r"into 64 lists"),
        ("PQ4", r"PQ4 trains codebooks of 256 entries, but .* has 49 .* at most 5 bits per code fit \(such as PQ8x5\)"),
        ("OPQ4,PQ4x4", r"codebooks of 256 entries"),
    ],
)  # fmt: skip
def test_too_few_training_rows_are_refused(
    make_store: MakeStore, vectors: Floats, tmp_path: Path, factory: str, message: str
) -> None:
    store = make_store(vectors[:49], name="small")
    with pytest.raises(UsageError, match=message):
        build(store, "pooled", tmp_path, factory)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("factory", ["IVF49,Flat", "PQ8x5"])
def test_suggested_number_of_lists_is_accepted(
    make_store: MakeStore, vectors: Floats, tmp_path: Path, factory: str
) -> None:
    assert build(make_store(vectors[:49], name="small"), "pooled", tmp_path, factory).n == 49


def test_damaged_vector_of_sample_is_named(store: Store) -> None:
    with h5py.File(store.shard_path(store.plan[1]), "r+") as file:
        file["pooled"][3, 0] = np.inf
    with pytest.raises(VerificationError, match=f"row {store.plan[1].start + 3}"):
        read_sample(store, "pooled", 490)
