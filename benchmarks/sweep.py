"""A sweep of linear heads against one head, and against as many runs of a plain torch loop.

    python benchmarks/sweep.py [--rows 15000] [--width 768] [--heads 50] [--epochs 10] [--rounds 5]

One round times, in turn, one head alone, the sweep, the sweep with its heads over five seeds (whose
batches differ, so that five stacks train), and one head as a torch.nn.Linear with torch.optim.SGD.
The table gives medians over the rounds and the median of the ratios to the head alone of the same
round, so that a busy machine hits all. The table also gives the multiplications of the two matrix
products of every step: where the ratio of the times nears that of the products, the sweep is bound
by arithmetic and no stacking helps; with many classes one head is bound by it already.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from pa.probe.linear.recipes import PAPER, LinearRecipe
from pa.probe.linear.stack import epoch_order, initial_weight
from pa.probe.linear.train import train_stack
from pa.probe.selection import LabelledRows
from pa.probe.training import Candidate

SEEDS = 5


def data(n: int, width: int, n_classes: int, seed: int) -> LabelledRows:
    """Clusters as wide as their distance: heads of every rate have something to learn."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, n_classes, n)
    targets[:n_classes] = np.arange(n_classes)
    centres = np.random.default_rng(99).standard_normal((n_classes, width), dtype=np.float32)
    features = 0.2 * centres[targets] + rng.standard_normal((n, width), dtype=np.float32)
    return LabelledRows(features, targets, np.arange(n), np.arange(n))


def stack(n_heads: int, seeds: int = 1) -> list[Candidate]:
    """Different rates and weight decays; over several seeds as many heads in all."""
    settings = n_heads // seeds
    rates = np.geomspace(0.001, 1.0, settings)
    return [
        Candidate("cls", float(lr), 1e-4 * (index % 2), seed)
        for seed in range(seeds)
        for index, lr in enumerate(rates)
    ]


def plain_torch(rows: LabelledRows, recipe: LinearRecipe, n_classes: int) -> None:
    x, y = torch.from_numpy(rows.features), torch.from_numpy(rows.targets)
    layer = torch.nn.Linear(x.shape[1], n_classes)
    with torch.no_grad():
        layer.weight.copy_(initial_weight(0, x.shape[1], n_classes, recipe.init_std))
    optimizer = torch.optim.SGD(layer.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    for epoch in range(recipe.epochs):
        for batch in epoch_order(0, epoch, len(x)).split(recipe.batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(x[batch]), y[batch]).backward()
            optimizer.step()


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(arguments: argparse.Namespace, n_classes: int) -> None:
    train = data(arguments.rows, arguments.width, n_classes, 0)
    test = data(n_classes, arguments.width, n_classes, 1)
    recipe = replace(PAPER, epochs=arguments.epochs)
    read = {"cls": (train, test)}.__getitem__

    def heads(candidates: list[Candidate]) -> Callable[[], object]:
        return lambda: train_stack(read, candidates, recipe, monitored=False)

    n = arguments.heads
    methods: dict[str, tuple[int, Callable[[], object]]] = {
        "one head": (1, heads(stack(1))),
        f"{n} heads, one seed": (n, heads(stack(n))),
        f"{n} heads, {SEEDS} seeds": (n, heads(stack(n, SEEDS))),
        "one head, plain torch": (1, lambda: plain_torch(train, recipe, n_classes)),
    }
    for _, work in methods.values():  # the first call pays for thread pools and memory
        work()
    durations = {name: [] for name in methods}
    for _ in range(arguments.rounds):
        for name, (_, work) in methods.items():
            durations[name].append(seconds(work))
    base = durations["one head"]
    products = 4 * arguments.rows * arguments.width * n_classes * arguments.epochs
    print(f"\nN {arguments.rows}, D {arguments.width}, C {n_classes}, {arguments.epochs} epochs")
    print(f"{'':24} {'seconds':>8} {'× one head':>11} {'products ×':>11} {'GFLOP/s':>8}")
    for name, (count, _) in methods.items():
        middle = statistics.median(durations[name])
        ratio = statistics.median(t / b for t, b in zip(durations[name], base, strict=True))
        speed = count * products / middle / 1e9
        print(f"{name:24} {middle:8.3f} {ratio:11.2f} {count:11d} {speed:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=15000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=50)
    parser.add_argument("--classes", default="4,100")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for n_classes in map(int, arguments.classes.split(",")):
        measure(arguments, n_classes)


if __name__ == "__main__":
    main()
