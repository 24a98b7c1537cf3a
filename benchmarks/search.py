"""Search against plain FAISS and numpy: one query, cold and warm, as ratios measured in one run.

    python benchmarks/search.py [--rows 49000] [--width 768] [--repeats 20]

"warm" answers one query from an open index; "cold" is a fresh process that opens the index and
answers one query, import time included on both sides. A ratio of 0.5 means half the time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import polars as pl

from pa.data.datasets import Images
from pa.data.regions import VIEWS
from pa.data.spec import Spec, digest_rows
from pa.data.store import Store
from pa.index.build import build
from pa.index.search import search

K = 24

COLD_OURS = """
import sys
from pa.data.store import Store
from pa.index.build import open_index
from pa.index.search import search
search(open_index(Store.open(sys.argv[1]), "pooled", sys.argv[2]), [7], 24)
"""
COLD_FLAT = """
import sys, faiss, numpy as np
index = faiss.read_index(sys.argv[1])
index.search(index.reconstruct(7)[None], 25)
"""


def make_store(path: Path, n: int, width: int) -> Store:
    generator = np.random.default_rng(0)
    table = pl.DataFrame(
        {"image": range(n), "path": [f"{i}.png" for i in range(n)]}
        | {"label": ["x"] * n, "label_id": [0] * n, "file_bytes": [1] * n}
    )
    rows = VIEWS["image"].rows(Images("noise", "all", Path(), table))
    spec = Spec(
        dataset="noise",
        split="all",
        view=VIEWS["image"].to_json(),
        encoder={"name": "noise"},
        transform={},
        precision={"compute": "fp32", "storage": "fp16"},
        representations={"pooled": [width]},
        rows={"n": n, "n_images": n, "sha256": digest_rows(rows)},
    )
    store = Store.create(path, spec, rows, {"root": "."}, shard_rows=8192)
    for shard in store.missing():
        with store.claim(shard) as writer:
            block = generator.normal(size=(shard.n_rows, width)).astype(np.float32)
            writer.append({"pooled": block}, np.ones(shard.n_rows, bool))
    store.finish()
    return Store.open(path)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> str:
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    values = [a / b for a, b in pairs]
    return f"{statistics.median(values):6.2f}   ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=49_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        store = make_store(place / "store", options.rows, options.width)
        index = build(store, "pooled", place / "indexes")
        vectors = store.read("pooled").astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = faiss.IndexFlatIP(options.width)
        flat.add(vectors)
        faiss.write_index(flat, str(place / "flat.faiss"))
        query = vectors[7:8]

        def ours() -> object:
            return search(index, [7], K)

        def by_numpy() -> object:
            scores = vectors @ query[0]
            return np.argpartition(-scores, K)[: K + 1]

        def run(*words: object) -> object:
            return subprocess.run([sys.executable, "-c", *map(str, words)], check=True)

        def cold() -> object:
            return run(COLD_OURS, store.path, place / "indexes")

        def cold_flat() -> object:
            return run(COLD_FLAT, place / "flat.faiss")

        many, few = options.repeats, max(3, options.repeats // 5)
        rows = [
            ("warm, FAISS IndexFlatIP", ratio(ours, lambda: flat.search(query, K + 1), many)),
            ("warm, numpy product", ratio(ours, by_numpy, many)),
            ("cold, FAISS IndexFlatIP", ratio(cold, cold_flat, few)),
        ]
    print(f"{options.rows} × {options.width}, top {K}, one query: pa's time / the other's")
    for name, value in rows:
        print(f"  {name:<25} {value}")


if __name__ == "__main__":
    main()
