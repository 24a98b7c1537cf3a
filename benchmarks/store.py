"""The feature store against raw files: writing and reading, as ratios measured in one run.

    python benchmarks/store.py [--rows 2000] [--repeats 5] [--dir /scratch]

The raw side writes and reads the same bytes with `open`, `write`, `fsync` and `read`: the floor.
A ratio of 1.2 means the store takes 1.2 times as long. Medians of the repeats, taken in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from pa.data.schema import Images
from pa.data.store.reader import Store
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create, finish
from pa.data.views import VIEWS

SHAPE = (197, 768)
BATCH = 16


def new_store(path: Path, rows: pl.DataFrame) -> Store:
    spec = Spec(
        dataset="noise",
        split="all",
        view=VIEWS["image"].to_json(),
        encoder={"name": path.name},
        transform={},
        precision={"compute": "fp32", "storage": "fp16"},
        representations={"patch": list(SHAPE)},
        rows={"n": len(rows), "n_images": len(rows), "sha256": digest_rows(rows)},
    )
    return create(path, spec, rows, {"root": "."}, shard_rows=500)


def write_store(path: Path, rows: pl.DataFrame, batch: np.ndarray) -> None:
    store = new_store(path, rows)
    for shard in store.missing():
        with claim(store, shard) as writer:
            for start in range(0, shard.n_rows, BATCH):
                n = min(BATCH, shard.n_rows - start)
                writer.append({"patch": batch[:n]}, np.ones(n, bool))
    finish(store)


def write_raw(path: Path, n_rows: int, batch: np.ndarray) -> None:
    """Convert to half precision and write, as the store does, with nothing else."""
    with path.open("wb") as file:
        for start in range(0, n_rows, BATCH):
            file.write(batch[: min(BATCH, n_rows - start)].astype(np.float16).data)
        os.fsync(file.fileno())


def read_store_rows(store: Store, wanted: np.ndarray) -> None:
    for start in range(0, len(wanted), 32):
        store.read("patch", wanted[start : start + 32])


def read_raw_rows(path: Path, wanted: np.ndarray) -> None:
    size = 2 * SHAPE[0] * SHAPE[1]
    with path.open("rb") as file:
        for row in wanted:
            file.seek(int(row) * size)
            np.frombuffer(file.read(size), np.float16)


def read_raw(path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(256 * 2 * SHAPE[0] * SHAPE[1]):
            np.frombuffer(block, np.float16)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where to write; default the system's tmp")
    options = parser.parse_args()
    n = options.rows
    batch = np.random.default_rng(0).normal(size=(BATCH, *SHAPE)).astype(np.float32)
    table = pl.DataFrame(
        {"image": range(n), "path": [f"{i}.png" for i in range(n)]}
        | {"label": ["x"] * n, "label_id": [0] * n, "file_bytes": [1] * n}
    )
    rows = VIEWS["image"].rows(Images("noise", "all", Path(), table))
    wanted = np.random.default_rng(1).integers(0, n, 512)
    ratios: dict[str, list[float]] = {"write": [], "read all": [], "read 512 random rows": []}
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        for repeat in range(options.repeats):
            store_path, raw = Path(folder) / f"store{repeat}", Path(folder) / f"raw{repeat}"
            ours = seconds(lambda p=store_path: write_store(p, rows, batch))
            ratios["write"].append(ours / seconds(lambda p=raw: write_raw(p, n, batch)))
            store = Store.open(store_path)
            ours = seconds(lambda s=store: [None for _ in s.blocks("patch", 256)])
            ratios["read all"].append(ours / seconds(lambda p=raw: read_raw(p)))
            ours = seconds(
                lambda s=store: [s.read("patch", wanted[i : i + 32]) for i in range(0, 512, 32)]
            )
            ratios["read 512 random rows"].append(
                ours / seconds(lambda p=raw: read_raw_rows(p, wanted))
            )
            for path in (raw, *store_path.glob("*.h5")):
                path.unlink()
    size = n * 2 * SHAPE[0] * SHAPE[1] / 1e6
    print(f"{n} rows of {SHAPE[0]}×{SHAPE[1]} fp16 ({size:.0f} MB), store time / raw file time")
    for name, values in ratios.items():
        low, high = min(values), max(values)
        print(f"  {name:<22} {statistics.median(values):5.2f}   ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
