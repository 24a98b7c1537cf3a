"""The unit costs behind docs/scale.md, and the simulated job arrays of its tables.

    python benchmarks/scale.py units [--rows 100000] [--dir /scratch]
    python benchmarks/scale.py simulate [--figure arrays.png]

`units` measures on this machine, one after the other in one run: what a row weighs in a store and
how fast a ViT-B/16 encodes, what a vector weighs in an index, how fast lists are trained, filled
and merged on disk, and what a search reads and takes. Vectors are seeded clusters of 768 numbers.
The cost of finding a row's list grows with their number: the rate of arithmetic that is printed
(2 · lists · width operations a row) is what a larger index is reckoned from.

`simulate` runs arrays of up to 10,000 tasks by the rules of `simulate_array.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from noise import make_noise_store
from simulate_array import HOUR, Conditions, simulate_array

from pa.data.store.reader import Store

WIDTH, QUERIES, K = 768, 64, 24
ROWS_OF_ALL, SHARD_ROWS = 1_000_000_000, 8_192
# 2,226 rows a second: a published rate of a ViT-B/16 on an A100, see docs/scale.md.
SHARD_SECONDS = SHARD_ROWS / 2226
FACTORIES = ("IVF{n},SQfp16@nprobe=16", "IVF{n},SQ8@nprobe=16", "IVF{n},PQ64@nprobe=16")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def make_store(folder: Path, vectors: npt.NDArray[np.float32]) -> Store:
    """A store of given vectors, in shards of 8,192 rows."""
    return make_noise_store(
        folder,
        len(vectors),
        {"pooled": [WIDTH]},
        SHARD_ROWS,
        lambda shard: [{"pooled": vectors[shard.start : shard.stop]}],
    )


def clusters(n: int) -> npt.NDArray[np.float32]:
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, WIDTH), dtype=np.float32)
    of = random.integers(0, len(centres), n)
    return centres[of] + random.standard_normal((n, WIDTH), dtype=np.float32)


def encoding() -> None:
    """The bare forward of a ViT-B/16 in fp32 on this machine's CPU."""
    import torch

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    network = timm.create_model("vit_base_patch16_224", num_classes=0).eval()
    pixels = torch.zeros(8, 3, 224, 224)
    with torch.inference_mode():
        network(pixels)
        seconds = statistics.median(timed(lambda: network(pixels)) for _ in range(3))
    threads = torch.get_num_threads()
    print(f"ViT-B/16, fp32, {threads} threads of the CPU: {8 / seconds:.2f} rows/s")


def storing(store: Store) -> None:
    """Bytes of a row on disk, beyond its numbers: headers, checksums, table of rows."""
    existing = sum(file.stat().st_size for file in store.path.iterdir())
    print(f"store: {existing / store.n_rows:.1f} bytes a row for {2 * WIDTH} of numbers (fp16)")
    listing = statistics.median(timed(store.missing) for _ in range(5))
    print(f"listing of what is missing, {len(store.plan)} shards: {1e3 * listing:.1f} ms")


def finding_lists(n_lists: int = 16_384, n: int = 2_048) -> None:
    """What filling an inverted file costs: the nearest of all centroids for every row."""
    from pa.index.library import load_faiss

    random = np.random.default_rng(2)
    quantiser = load_faiss().IndexFlatIP(WIDTH)
    quantiser.add(random.standard_normal((n_lists, WIDTH), dtype=np.float32))
    rows = random.standard_normal((n, WIDTH), dtype=np.float32)
    quantiser.assign(rows, 1)
    seconds = statistics.median(timed(lambda: quantiser.assign(rows, 1)) for _ in range(3))
    operations = 2 * n_lists * WIDTH * n / seconds
    print(
        f"one of {n_lists} lists for a row: {n / seconds:.0f} rows/s, "
        f"{operations / 1e9:.1f} G operations/s"
    )


def indexing(store: Store, folder: Path, n_lists: int) -> None:
    """Build each kind whole and in four pieces; bytes, times, recall, and a search's cost."""
    from pa.index.build import build
    from pa.index.search import search
    from pa.index.stored import Recall

    queries = np.random.default_rng(1).choice(store.n_rows, QUERIES, replace=False).tolist()
    print(
        f"\n{'index':<34} {'bytes/row':>9} {'recall@24':>9} {'train s':>8} {'add rows/s':>10} "
        f"{'merge MB/s':>10} {'ms/query':>9} {'MB/query':>9} {'equal':>6}"
    )
    for template in FACTORIES:
        factory = template.format(n=n_lists)
        output: dict[str, float] = {}
        with pieces_timed(output):
            whole = build(store, "pooled", folder / "whole", factory)
            merged = build(store, "pooled", folder / "merged", factory, pieces=4)
        n_bytes = sum(entry.bytes for entry in merged.info.files.values())
        lists = merged.info.files["index.ivfdata"].bytes
        answers = [search(index, queries, K) for index in (whole, merged)]
        equal = all(
            item.neighbours == other.neighbours for item, other in zip(*answers, strict=True)
        )
        seconds = timed(lambda index=merged: search(index, queries, K)) / QUERIES
        recall = merged.info.recall_at_24
        assert isinstance(recall, Recall)
        visited = lists * 16 / n_lists
        print(
            f"{factory:<34} {n_bytes / store.n_rows:9.1f} {recall.value:9.3f} "
            f"{output['train']:8.1f} "
            f"{store.n_rows / output['add']:10.0f} {lists / output['merge'] / 1e6:10.0f} "
            f"{1e3 * seconds:9.1f} {visited / 1e6:9.2f} {'yes' if equal else 'NO':>6}"
        )


class pieces_timed:  # noqa: N801 - used as a function
    """Time training, adding and merging inside a build: seconds by name, of the last of each."""

    def __init__(self, message: dict[str, float]) -> None:
        self.message = message

    def __enter__(self) -> None:
        import faiss.contrib.ondisk as ondisk

        import pa.index.build as building

        self.kept = (building.train, building._fill, ondisk.merge_ondisk)
        train, fill, merge = self.kept

        def note(name: str, work: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **named: object) -> object:
                began = time.perf_counter()
                try:
                    return work(*args, **named)
                finally:
                    self.message[name] = time.perf_counter() - began

            return call

        def fill_once(*args: object) -> object:
            # Of the whole index: in pieces it includes the merge.
            return (note("add", fill) if args[-1] is None else fill)(*args)

        building.train = note("train", train)  # type: ignore[assignment]
        building._fill = fill_once  # type: ignore[assignment]
        ondisk.merge_ondisk = note("merge", merge)

    def __exit__(self, *_: object) -> None:
        import faiss.contrib.ondisk as ondisk

        import pa.index.build as building

        building.train, building._fill, ondisk.merge_ondisk = self.kept  # type: ignore[assignment]


def units(rows: int, folder: Path) -> None:
    encoding()
    store = make_store(folder / "store", clusters(rows))
    storing(store)
    finding_lists()
    indexing(store, folder, max(16, rows // 400))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nlargest memory of this process: {peak:.0f} MB")


# -- simulated arrays -------------------------------------------------------------------------

WEATHER = {
    "no faults": {},
    "failures 0.01/h": {"failures": 0.01},
    "and preemptions 0.1/h": {"failures": 0.01, "preemptions": 0.1},
    "and preemptions 1/h": {"failures": 0.01, "preemptions": 1.0},
    "and requeued every hour": {"failures": 0.01, "preemptions": 1.0, "limit": HOUR},
}
CALM = Conditions(10_000, start=60.0, requeue=300.0, spread=0.1)
# A billion rows, 8,192 in a shard, on 100, 1,000 and 10,000 GPUs; and 10,000 tasks of an hour of
# work each, of which 1,000 or all run at once: tasks, at once, shards, seconds of a shard.
CASES = {
    "100 GPUs": (100, 100, -(-ROWS_OF_ALL // SHARD_ROWS), SHARD_SECONDS),
    "1,000 GPUs": (1_000, 1_000, -(-ROWS_OF_ALL // SHARD_ROWS), SHARD_SECONDS),
    "10,000 GPUs": (10_000, 10_000, -(-ROWS_OF_ALL // SHARD_ROWS), SHARD_SECONDS),
    "10,000 h on 1,000": (10_000, 1_000, 100_000, 360.0),
    "10,000 h on 10,000": (10_000, 10_000, 100_000, 360.0),
}


def simulate(figure: Path | None) -> None:
    """Finish over ideal, encoding lost, and what the tasks ask of the file server."""
    print(
        f"{'case':<19} {'weather':<24} {'ideal h':>8} {'complete h':>10} {'finish h':>9} "
        f"{'complete/ideal':>14} {'lost %':>7} {'again':>7} {'idle':>6} {'last':>5} {'looks':>7} "
        f"{'tries/shard':>11} {'s':>6}"
    )
    collected: dict[tuple[str, str], float] = {}
    for case, (tasks, parallel, shards, seconds) in CASES.items():
        for weather, change in WEATHER.items():
            conditions = dataclasses.replace(CALM, tasks=tasks, parallel=parallel, **change)
            began = time.perf_counter()
            run = simulate_array(np.full(shards, seconds), conditions)
            took = time.perf_counter() - began
            collected[case, weather] = run.complete / run.ideal
            print(
                f"{case:<19} {weather:<24} {run.ideal / HOUR:8.2f} {run.complete / HOUR:10.2f} "
                f"{run.finish / HOUR:9.2f} {run.complete / run.ideal:14.2f} "
                f"{100 * run.lost / run.work:7.2f} {run.taken_again:7,} {run.idle:6,} "
                f"{run.by_last_job:5} {run.looks:7,} {run.tries / shards:11.1f} {took:6.1f}",
                flush=True,
            )
    if figure is not None:
        draw(collected, figure)


def draw(actual: dict[tuple[str, str], float], path: Path) -> None:
    """Bars of the time to completion over the ideal: one group per case, one colour per weather."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = ("#999999", "#56B4E9", "#009E73", "#E69F00", "#D55E00")  # Okabe and Ito
    canvas, panel = plt.subplots(figsize=(7.2, 3.0))
    for index, (weather, colour) in enumerate(zip(WEATHER, colours, strict=True)):
        heights = [actual[case, weather] for case in CASES]
        x = np.arange(len(CASES)) + (index - 2) * 0.16
        panel.bar(x, heights, 0.15, color=colour, label=weather)
    panel.axhline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    panel.set_xticks(range(len(CASES)), [case.replace(" on ", "\non ") for case in CASES])
    panel.set_ylabel("time to completion / ideal")
    panel.set_ylim(0, 1.15 * max(actual.values()))
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    canvas.tight_layout()
    canvas.savefig(path, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("units", "simulate"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, help="Scratch folder of `units`.")
    parser.add_argument("--figure", type=Path, help="Draw the simulations.")
    args = parser.parse_args()
    if args.what == "simulate":
        simulate(args.figure)
        return
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        units(args.rows, Path(folder))


if __name__ == "__main__":
    main()
