"""Exact average precision of all pairs against the other ways to compute it, in one run.

    python benchmarks/retrieval.py [--rows 20000] [--width 768] [--queries 512]
    python benchmarks/retrieval.py --growth 5000,10000,20000,30543,64000

The floor is what no exact way can avoid: the bare matrix product, and a bare sort of as many int32
on all cores. Ways that would take minutes are timed on `--queries` of the queries and scaled up;
the table says so. Ours is always timed on all of them. Rounds alternate between the ways, so that a
busy machine hits all; the median of their ratios is printed, and first the largest difference to
scikit-learn on equal cosines. `--growth` runs each size in a process
of its own, and prints time over N² and the peak of resident memory over that of the start.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from pa.evaluate.cosines import threads
from pa.evaluate.retrieval import average_precision, evaluate_all_pairs
from pa.extract import torchvision_ops

PARTS = 4
SCORED = 256  # queries of a block, in the ways that work in blocks


def data(n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Clustered vectors of four parts, with frequencies as in CUB."""
    rng = np.random.default_rng(0)
    labels = rng.choice(PARTS, n, p=[0.19, 0.26, 0.21, 0.34])
    centres = rng.standard_normal((PARTS, width), dtype=np.float32)
    features = 0.3 * centres[labels] + rng.standard_normal((n, width), dtype=np.float32)
    return features, labels


def ours(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return evaluate_all_pairs(features, labels, include_self=True).ap


def floor(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """A bare product and a bare sort; gives no score."""
    n = len(features)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    step = max(1, (64 << 20) // (4 * n))
    block = np.empty((step, n), dtype=np.float32)
    rows = max(1, (1 << 18) // n)
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, n, step):
            part = block[: min(step, n - start)]
            np.matmul(units[start : start + step], units.T, out=part)
            runs = np.split(part.view(np.int32), range(rows, len(part), rows))
            list(pool.map(lambda run: run.sort(axis=1), runs))
    return np.empty(0)


def _cosine_blocks(features: np.ndarray, queries: np.ndarray, size: int = SCORED):
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    for start in range(0, len(queries), size):
        rows = queries[start : start + size]
        yield rows, units[rows] @ units.T


def scikit_learn(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return np.array(
        [
            average_precision_score(labels == labels[query], row)
            for rows, scores in _cosine_blocks(features, queries)
            for query, row in zip(rows, scores, strict=True)
        ]
    )


def torch_argsort(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    units = torch.nn.functional.normalize(torch.from_numpy(features), dim=1)
    target = torch.from_numpy(labels)
    rank = torch.arange(1, len(units) + 1)
    out = []
    for rows in torch.from_numpy(queries).split(SCORED):
        order = (units[rows] @ units.T).argsort(dim=1, descending=True)
        hits = target[order] == target[rows][:, None]
        precision = hits.cumsum(1) / rank
        out.append((precision * hits).sum(1) / hits.sum(1))
    return torch.cat(out).numpy()


def torchmetrics_map(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Its function drops relevant items that score 0 or less: all cosines are raised by 2."""
    torchvision_ops.ensure()  # torchmetrics imports torchvision
    from torchmetrics.functional.retrieval import retrieval_average_precision

    target = torch.from_numpy(labels)
    return np.array(
        [
            retrieval_average_precision(torch.from_numpy(row) + 2, target == target[query]).item()
            for rows, scores in _cosine_blocks(features, queries)
            for query, row in zip(rows, scores, strict=True)
        ]
    )


def released(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """As the released evaluation: a broadcast cosine for 16 queries at a time, scikit-learn."""
    vectors = torch.from_numpy(features)
    out = []
    for rows in np.split(queries, range(16, len(queries), 16)):
        scores = torch.cosine_similarity(vectors[rows][:, None], vectors[None], dim=2).numpy()
        out += [
            average_precision_score(labels == labels[query], row)
            for query, row in zip(rows, scores, strict=True)
        ]
    return np.array(out)


Method = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
METHODS: dict[str, tuple[Method, bool]] = {
    "floor: bare product + bare sort": (floor, True),
    "torch argsort in blocks": (torch_argsort, False),
    "scikit-learn in a loop": (scikit_learn, False),
    "torchmetrics in a loop": (torchmetrics_map, False),
    "released: broadcast + scikit-learn": (released, False),
}


def compare(n: int, width: int, n_queries: int, rounds: int) -> None:
    features, labels = data(n, width)
    everything = np.arange(n)
    some = np.sort(np.random.default_rng(1).choice(n, min(n_queries, n), replace=False))
    gap = on_equal_cosines(features, labels, some)
    print(f"largest difference to scikit-learn on equal cosines: {gap:.1e}", flush=True)
    reference = ours(features, labels, everything)
    ratios: dict[str, list[float]] = {name: [] for name in METHODS}
    gaps: dict[str, float] = {}
    for _ in range(rounds):
        current, _ = timed(ours, features, labels, everything)
        for name, (method, whole) in METHODS.items():
            queries = everything if whole else some
            if method is released:
                queries = some[:64]
            try:
                seconds, scores = timed(method, features, labels, queries)
            except ImportError:
                continue
            ratios[name].append(seconds * n / len(queries) / current)
            if len(scores):
                gaps[name] = float(np.abs(scores - reference[queries]).max())
    print(
        f"\nN = {n}, D = {width}, {threads()} threads, load {os.getloadavg()[0]:.1f}; time / ours"
    )
    for name, values in ratios.items():
        if not values:
            print(f"  {name:36} not installed")
            continue
        spread = f"{min(values):.2f} to {max(values):.2f}"
        whole = METHODS[name][1]
        scaled = (
            "" if whole else f"  scaled from {64 if METHODS[name][0] is released else len(some)}"
        )
        gap = f"  largest difference {gaps[name]:.1e}" if name in gaps else ""
        print(f"  {name:36} {statistics.median(values):8.2f}  ({spread}){scaled}{gap}")


def on_equal_cosines(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> float:
    """Largest difference to scikit-learn where both are given the same float32 cosines."""
    gaps = [0.0]
    for rows, scores in _cosine_blocks(features, queries):
        relevant = labels[rows][:, None] == labels
        reference = [average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)]
        gaps.append(float(np.abs(average_precision(scores, relevant) - reference).max()))
    return max(gaps)


def timed(method: Method, *arguments: np.ndarray) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    scores = method(*arguments)
    return time.perf_counter() - start, scores


def grow(sizes: list[int], width: int) -> None:
    print(f"D = {width}; each size in its own process")
    print(f"  {'N':>7} {'seconds':>9} {'s / (N/10⁴)²':>13} {'peak memory':>17} {'of it 4·N·D':>12}")
    for n in sizes:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(n), "--width", str(width)],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, before, peak = map(float, done.stdout.split())
        units = 4 * n * width / 2**20
        print(
            f"  {n:7} {seconds:9.1f} {seconds / (n / 1e4) ** 2:13.2f} "
            f"{(peak - before) / 1024:13.0f} MiB {units:8.0f} MiB"
        )


def compare_size(n: int, width: int) -> None:
    """One size: seconds, and kilobytes of memory before and at the peak."""
    features, labels = data(n, width)
    evaluate_all_pairs(features[:500], labels[:500])
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4
    start = time.perf_counter()
    evaluate_all_pairs(features, labels)
    seconds = time.perf_counter() - start
    print(seconds, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth")
    parser.add_argument("--one", type=int)
    args = parser.parse_args()
    if args.one:
        compare_size(args.one, args.width)
    elif args.growth:
        grow([int(size) for size in args.growth.split(",")], args.width)
    else:
        compare(args.rows, args.width, args.queries, args.rounds)
