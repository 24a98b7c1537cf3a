"""FAISS on a GPU, with a stand-in for one: what is asked of it, and that answers stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from pa.data.schema import Images
from pa.data.store.find import StoreSelector
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.errors import MissingError, UsageError
from pa.extract.image_query import ImageQuery
from pa.index.build import build
from pa.index.gpu import OnGpu, gpu_number, to_gpu
from pa.index.ranking import cosines, error_bound
from pa.index.search import search
from pa.workspace import Workspace
from tests.support.images import noise_image
from tests.support.vectors import write_store

Floats = npt.NDArray[np.float32]


class HalfGpu:
    """Searches as FAISS's GpuIndexFlat with useFloat16 does: both sides rounded to fp16, k ≤ 2048.

    An index over no rows (that of k-means) is handed out as it is.
    """

    def __init__(self, copied: Any) -> None:
        self.gallery = copied.reconstruct_n(0, copied.ntotal).astype(np.float16)
        self.asked: list[int] = []

    def search(self, vectors: Floats, k: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        assert k <= 2048, "a GPU selects at most 2048"
        self.asked.append(k)
        scores = vectors.astype(np.float16).astype(np.float32) @ self.gallery.T.astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), order


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs of a stand-in; the numbers of those that got an index."""
    used: list[int] = []

    def copy(resources: object, number: int, index: Any) -> Any:
        used.append(number)
        if "HNSW" in type(index).__name__:
            raise RuntimeError("Error in f at /project/x.cu:1: This index type is not implemented")
        return HalfGpu(index) if index.ntotal else index

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    return used


@pytest.mark.parametrize(
    ("device", "number"), [("cpu", None), ("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)
def test_devices(gpus: list[int], device: str, number: int | None) -> None:
    assert gpu_number(device) == number


def test_missing_devices_are_refused(gpus: list[int]) -> None:
    with pytest.raises(UsageError, match="FAISS sees 2 GPUs, cuda:0 to cuda:1"):
        gpu_number("cuda:2")
    with pytest.raises(UsageError, match="unknown device 'mps' of an index"):
        gpu_number("mps")


def test_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    assert gpu_number("auto") is None
    with pytest.raises(UsageError, match=r"device cuda: FAISS .* sees no GPU here.*\[gpu\]"):
        gpu_number("cuda")


@pytest.mark.parametrize("k", [1, 24, 300])
def test_answers_are_those_of_the_cpu(
    gpus: list[int], store: Store, tmp_path: Path, k: int
) -> None:
    index = build(store, "pooled", tmp_path)
    existing = to_gpu(index, 1)
    assert search(existing, range(0, 490, 30), k) == search(index, range(0, 490, 30), k)
    assert gpus == [1]
    assert existing.faiss_index.index.asked


def test_scores_of_a_gpu_stay_within_the_bound(
    gpus: list[int], store: Store, tmp_path: Path, vectors: Floats
) -> None:
    existing = to_gpu(build(store, "pooled", tmp_path), 0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores, rows = existing.candidates(unit[:20], 490)
    errors = [
        np.abs(score - cosines(query, vectors[values])).max()
        for query, score, values in zip(vectors, scores, rows, strict=False)
    ]
    assert max(errors) < error_bound(24, half_gallery=True, half_query=True)
    assert error_bound(24, half_gallery=True) > error_bound(24, half_gallery=False) > 0


def test_beyond_the_largest_k_the_cpu_answers() -> None:
    class Counting:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def search(self, vectors: Floats, k: int) -> tuple[None, None]:
            self.asked.append(k)
            return None, None

    here, existing = Counting(), Counting()
    both = OnGpu(existing, object(), here)
    for k in (24, 2048, 2049):
        both.search(np.ones((1, 2), np.float32), k)
    assert (existing.asked, here.asked) == ([24, 2048], [2049])


def test_unsupported_index_is_refused(gpus: list[int], store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path, "HNSW16")
    with pytest.raises(
        UsageError, match=r"HNSW16 cannot be searched on cuda:1: This index type is not impl"
    ):
        to_gpu(index, 1)


def test_lists_are_found_on_the_gpu(gpus: list[int], store: Store, tmp_path: Path) -> None:
    """The k-means of an IVF index gets an empty inner-product index there; the rest is the same."""
    on_gpu = build(store, "pooled", tmp_path / "gpu", "IVF8,Flat@nprobe=2", gpu=1)
    on_cpu = build(store, "pooled", tmp_path / "cpu", "IVF8,Flat@nprobe=2")
    assert gpus == [1]
    assert on_gpu.info.recall_at_24 == on_cpu.info.recall_at_24
    files = [(index.path / "index.faiss").read_bytes() for index in (on_gpu, on_cpu)]
    assert files[0] == files[1]


@pytest.fixture
def workspace(in_empty_folder: Path) -> Path:
    """A workspace with one store of 60 images."""
    columns = {"label": ["x"] * 60, "label_id": [0] * 60, "file_bytes": [1] * 60}
    paths = {"image": range(60), "path": [f"{i:02d}.jpg" for i in range(60)]}
    images = Images("toy", "all", in_empty_folder, pl.DataFrame(paths | columns))
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    write_store(in_empty_folder / "features", images, VIEWS["image"], {"pooled": vectors})
    return in_empty_folder


def test_search_on_the_device_named(gpus: list[int], workspace: Path) -> None:
    work = Workspace(workspace)
    here, existing = (
        work.search(work.stores(StoreSelector()), 4, k=5, device=device)[0][1]
        for device in (None, "cuda:1")
    )
    assert gpus == [1]
    assert here == existing


def test_encoder_device_can_differ_from_faiss(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With faiss-cpu, --image --device cuda encodes on the GPU and searches on the CPU."""
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    noise_image(1).save(workspace / "mine.png")
    work, image = Workspace(workspace), workspace / "mine.png"
    stores = work.stores(StoreSelector())
    # The index is built, on the CPU; the missing encoder is the error.
    with pytest.raises((MissingError, UsageError), match=r"checkpoint|finds no CUDA"):
        work.search(stores, ImageQuery.read(image), device="cuda")
    assert list(workspace.rglob("index.faiss"))
    with pytest.raises(UsageError, match=r"FAISS .* sees no GPU here"):
        work.search(stores, 1, device="cuda")
