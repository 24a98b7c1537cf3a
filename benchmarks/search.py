"""Search at scale, against plain FAISS and torch, measured in turn in one run.

    python benchmarks/search.py [--rows 200000] [--width 768] [--batch 256] [--rounds 5]
                                [--ivf IVF1024,SQfp16@nprobe=16] [--flat-gb 4] [--keep DIR]

Every answer of `pa` is whole: exact cosines of the stored vectors, paths, boxes and labels. The
others return FAISS's or torch's own scores and positions. "warm" has everything open, "cold" is a
fresh process, imports included, that opens what is on disk and answers one query (files are in the
page cache on all sides). Each round times every way once; a ratio is the median over rounds of
other's time / pa's exact time: 2.0 means that pa is twice as fast.

The vectors are clustered, as features are: x = W (c + z / 2) + e / 10 with c one of 2,000 centres
in 64 dimensions, c, z and e standard normal, W (64 → D) normal over 8. Independent random vectors
have no neighbours to speak of and are the worst case of an IVF index; its recall here is not that
on your features, which `pa index build` measures.

Flat and the float32 matrix of torch are one and the same memory, and left out where they would be
larger than --flat-gb.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from pa.data.images import Transform
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import DEFAULT_SHARD_ROWS, claim, create, finish
from pa.data.vectors import unit_vectors
from pa.data.views import VIEWS
from pa.index.build import open_or_build
from pa.index.search import search
from pa.index.stored import Index

K = 24
PER_IMAGE = 49
BLOCK_ROWS = 16_384
Work = Callable[[], object]

COLD_PA = "from pa.cli import main; main()"
COLD_FAISS = """
import sys, faiss
index = faiss.read_index(sys.argv[1], getattr(faiss, sys.argv[2]))
print(index.search(index.reconstruct(7)[None], 25))
"""
COLD_TORCH = """
import sys, numpy, torch
x = torch.from_numpy(numpy.load(sys.argv[1], mmap_mode="r+"))
print((x[7:8].float() @ x.float().T).topk(25))
"""


# -- what is searched -------------------------------------------------------------------------


def make_store(workspace: Path, n: int, width: int) -> Store:
    """Return a store of clustered vectors in windows of images, created if missing."""
    features = workspace / "features"
    for values in stores.find(features):
        if values.is_complete and (values.n_rows, values.shape("pooled")) == (n, (width,)):
            return values
    n_images = n // PER_IMAGE
    numbers = range(n_images)
    table = pl.DataFrame(
        {
            "image": numbers,
            "path": [f"n{i // 1000:08d}/val_{i:08d}.JPEG" for i in numbers],
            "label": [f"n{i // 1000:08d}" for i in numbers],
            "label_id": [i // 1000 for i in numbers],
            "file_bytes": [1] * n_images,
        }
    )
    view = VIEWS["grid"]
    rows = view.rows(Images("clustered", "all", Path(), table))
    spec = Spec(
        dataset="clustered",
        split="all",
        view=view.to_json(),
        encoder={"name": "made-up", "weights_sha256": "0", "architecture": {}, "options": {}},
        transform=Transform().to_json(),
        precision={"compute": "fp32", "storage": "fp16"},
        representations={"pooled": [width]},
        rows={"n": len(rows), "n_images": n_images, "sha256": digest_rows(rows)},
    )
    path = stores.store_directory(features, "clustered", "all", "grid", "made-up") / spec.short
    store = create(path, spec, rows, {"root": "."}, DEFAULT_SHARD_ROWS)
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((2000, 64), dtype=np.float32)
    spread = generator.standard_normal((64, width), dtype=np.float32) / 8
    for shard in store.missing():
        with claim(store, shard) as writer:
            n_shard = shard.n_rows
            latent = centres[generator.integers(0, 2000, n_shard)]
            latent = latent + generator.standard_normal((n_shard, 64), dtype=np.float32) / 2
            noise = generator.standard_normal((n_shard, width), dtype=np.float32) / 10
            writer.append({"pooled": latent @ spread + noise}, np.ones(n_shard, np.bool_))
    finish(store)
    return Store.open(path)


def half_matrix(index: Index) -> torch.Tensor:
    """The unit vectors (N, D) float16 that a SQfp16 index holds, without a copy."""
    quantised = index.faiss_index
    codes = faiss.rev_swig_ptr(quantised.codes.data(), quantised.ntotal * quantised.code_size)
    return torch.from_numpy(codes.view(np.float16).reshape(quantised.ntotal, quantised.d))


def flat_index(store: Store) -> faiss.IndexFlatIP:
    flat = faiss.IndexFlatIP(store.shape("pooled")[0])
    flat.codes.resize(store.n_rows * flat.code_size)
    flat.codes.resize(0)
    for _, block in store.blocks("pooled"):
        flat.add(unit_vectors(block))
    return flat


# -- the ways to search it --------------------------------------------------------------------


def by_torch(matrix: torch.Tensor, queries: torch.Tensor) -> object:
    """GEMM and top-k of a float32 matrix, a block of rows at a time."""
    best = None
    for start in range(0, len(matrix), BLOCK_ROWS):
        block = matrix[start : start + BLOCK_ROWS].float()  # no copy where it is float32
        scores, actual = (queries @ block.T).topk(min(K + 1, len(block)))
        actual += start
        if best is not None:
            scores, actual = torch.cat([best[0], scores], 1), torch.cat([best[1], actual], 1)
            scores, places = scores.topk(K + 1)
            actual = actual.gather(1, places)
        best = scores, actual
    return best


def warm(
    exact: Index, approximate: Index, flat: faiss.IndexFlatIP | None, rows: npt.NDArray[np.int64]
) -> dict[str, Work]:
    queries = unit_vectors(exact.store.read("pooled", rows))
    tensor, ids = torch.from_numpy(queries), rows.tolist()
    half = half_matrix(exact)
    methods: dict[str, Work] = {
        "pa, exact (SQfp16)": lambda: search(exact, ids, K),
        f"pa, {approximate.info.factory}": lambda: search(approximate, ids, K),
        "FAISS SQfp16": lambda: exact.faiss_index.search(queries, K + 1),
        f"FAISS {approximate.info.factory}": lambda: approximate.faiss_index.search(queries, K + 1),
        "torch, fp16 held, fp32 GEMM + topk": lambda: by_torch(half, tensor),
    }
    if flat is not None:
        memory = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
        single = torch.from_numpy(memory.reshape(flat.ntotal, flat.d))
        methods["FAISS Flat"] = lambda: flat.search(queries, K + 1)
        methods["torch, fp32 GEMM + topk"] = lambda: by_torch(single, tensor)
    return methods


def cold(
    workspace: Path, exact: Index, approximate: Index, flat: faiss.IndexFlatIP | None
) -> dict[str, Work]:
    def run(*words: object) -> Work:
        command = [sys.executable, "-c", *map(str, words)]
        return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    pa_search = (COLD_PA, "search", "--query-id", 7, "-k", K, "--workspace", workspace)
    methods = {
        "pa, exact (SQfp16)": run(*pa_search),
        f"pa, {approximate.info.factory}": run(*pa_search, "--index", approximate.info.factory),
        "FAISS SQfp16, mapped": run(COLD_FAISS, exact.path / "index.faiss", "IO_FLAG_MMAP_IFC"),
    }
    if flat is not None:
        file, matrix = workspace / "flat.faiss", workspace / "flat.npy"
        faiss.write_index(flat, str(file))
        memory = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
        np.save(matrix, memory.reshape(flat.ntotal, flat.d))
        methods["FAISS Flat, read"] = run(COLD_FAISS, file, "IO_FLAG_READ_ONLY")
        methods["FAISS Flat, mapped"] = run(COLD_FAISS, file, "IO_FLAG_MMAP_IFC")
        methods["torch, fp32 mapped"] = run(COLD_TORCH, matrix)
    return methods


# -- the table --------------------------------------------------------------------------------


def compare(title: str, methods: dict[str, Work], rounds: int, n_queries: int = 1) -> None:
    times: dict[str, list[float]] = {name: [] for name in methods}
    for work in methods.values():
        work()
    for _ in range(rounds):
        for name, work in methods.items():
            times[name].append(seconds(work))
    ours = next(iter(times.values()))
    print(f"\n{title}\n  {'':<36} {'seconds':>9} {'queries/s':>10}   other / pa exact")
    for name, actual in times.items():
        median = statistics.median(actual)
        ratios = [other / current for other, current in zip(actual, ours, strict=True)]
        low, high = min(ratios), max(ratios)
        print(
            f"  {name:<36} {median:>9.3f} {n_queries / median:>10.1f}   "
            f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
        )


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def timed_build(store: Store, workspace: Path, factory: str) -> Index:
    start = time.perf_counter()
    opened = open_or_build(store, "pooled", workspace / "indexes", factory)
    index, done = opened.index, "built" if opened.built else "opened"
    n_bytes = sum(file.bytes for file in index.info.files.values())
    print(
        f"  {factory}: {done} in {time.perf_counter() - start:.1f} s, {n_bytes / 1e9:.2f} GB, "
        f"{index.info.quality}; peak of this process so far {peak_gb():.2f} GB"
    )
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ivf", default="IVF1024,SQfp16@nprobe=16")
    parser.add_argument("--flat-gb", type=float, default=4.0)
    parser.add_argument("--keep", type=Path, help="Workspace to keep the store in.")
    options = parser.parse_args()
    n = options.rows // PER_IMAGE * PER_IMAGE
    with tempfile.TemporaryDirectory() as folder:
        workspace = options.keep or Path(folder)
        store = make_store(workspace, n, options.width)
        print(
            f"{n:,} × {options.width}, top {K}; FAISS {faiss.__version__}, torch "
            f"{torch.__version__}, {torch.get_num_threads()} threads, load "
            f"{os.getloadavg()[0]:.1f}\n"
        )
        exact = timed_build(store, workspace, "SQfp16")
        approximate = timed_build(store, workspace, options.ivf)
        flat = flat_index(store) if 4e-9 * n * options.width <= options.flat_gb else None
        rows = np.random.default_rng(1).choice(n, options.batch, replace=False)
        compare("warm, one query", warm(exact, approximate, flat, rows[:1]), options.rounds)
        compare(
            f"warm, a batch of {options.batch}",
            warm(exact, approximate, flat, rows),
            max(1, options.rounds // 2),
            options.batch,
        )
        compare("cold, one process", cold(workspace, exact, approximate, flat), options.rounds)
        print(f"\npeak of this process {peak_gb():.2f} GB (pages of mapped files counted)")


if __name__ == "__main__":
    main()
