"""The attentive probe's two halves, and both together; and its attention against the plain one.

    python benchmarks/streaming.py [--rows 2048] [--seeds 1] [--epochs 9] [--dir /scratch]

A store of random patch tokens larger than the stream's buffers is written, and read back three
ways, one after the other in the same run: the reader alone (block-shuffled batches, nothing done
with them), the training step alone (on batches already in memory, converted as those are), and an
epoch that does both. Were reading and computing perfectly side by side, an epoch would take as
long as the slower of the two. On a machine of two cores set OMP_NUM_THREADS=1: one core computes,
the other reads.

Then one training step of the same batch, in turn: by torch's own layers (a key and a value
projection of every token, `nn.MultiheadAttention`) against the folded ones of `pa.probe.attentive`,
which give equal gradients; and of several heads together against one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from noise import Parts, make_noise_store
from torch import nn

from pa.data.store.reader import Store
from pa.data.store.shards import ShardPlan
from pa.data.store.stream import BlockShuffle
from pa.probe.attentive.recipes import PAPER
from pa.probe.attentive.stack import AttentiveStack
from pa.probe.attentive.tokens import Batch, Tokens
from pa.probe.selection import Side

L, D, CLASSES = 196, 768, 10
HEADS = 5
CPU = torch.device("cpu")


def make_store(path: Path, n: int) -> Store:
    noise = np.random.default_rng(0).normal(size=(17, 1 + L, D)).astype(np.float32)

    def pieces(shard: ShardPlan) -> Iterator[Parts]:
        for start in range(0, shard.n_rows, len(noise)):
            piece = noise[: shard.n_rows - start]
            yield {"cls": piece[:, 0], "patch": piece[:, 1:]}

    return make_noise_store(path, n, {"cls": [D], "patch": [L, D]}, 1024, pieces)


class Step:
    """One training step of all heads, as `pa.probe.attentive.train` does it."""

    def __init__(self, seeds: int, device: torch.device = CPU) -> None:
        self.heads = AttentiveStack.new(range(seeds), D, CLASSES, PAPER, device)
        for parameter in self.heads.parameters.values():
            parameter.requires_grad_(True)

    def __call__(self, batch: Batch, targets: torch.Tensor) -> None:
        logits = self.heads.train_logits(batch.cls, batch.patch, 0.1)
        y = targets[torch.from_numpy(batch.positions).to(targets.device)]
        loss = sum(F.cross_entropy(item, y) for item in logits)
        parameters = list(self.heads.parameters.values())
        with torch.no_grad():
            for parameter, gradient in zip(
                parameters, torch.autograd.grad(loss, parameters), strict=False
            ):
                parameter.sub_(gradient, alpha=0.01)


class PlainHead(nn.Module):
    """The same head by torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, D))
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(D, eps=1e-6) for _ in range(3))
        self.attention = nn.MultiheadAttention(D, 12, batch_first=True)
        self.norm = nn.BatchNorm1d(D, affine=False)
        self.classifier = nn.Linear(D, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query = self.norm_q(self.query).expand(len(tokens), -1, -1)
        out, _ = self.attention(query, self.norm_k(tokens), self.norm_v(tokens), need_weights=False)
        return self.classifier(self.norm(out[:, 0]))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def halves(store: Store, batch: int, seeds: int, epochs: int) -> None:
    rows = np.arange(store.n_rows)
    side = Side(store, rows, rows % CLASSES, rows, n_bad=0, n_unlabelled=0)
    tokens, order = Tokens(side, CPU), BlockShuffle(block_rows=64, buffer_rows=2 * batch)
    step = Step(seeds)

    def stream(epoch: int) -> Iterator[Batch]:
        return tokens.batches(batch, order.buffers(len(tokens), epoch))

    held = [
        Batch(b.positions.copy(), b.cls.clone(), b.patch.clone())
        for b, _ in zip(stream(0), range(2), strict=False)
    ]
    n_steps = -(-len(tokens) // batch)

    def read(epoch: int) -> None:
        for _ in stream(epoch):
            pass

    def compute() -> None:
        for number in range(n_steps):
            step(held[number % len(held)], tokens.targets)

    def both(epoch: int) -> None:
        for item in stream(epoch):
            step(item, tokens.targets)

    compute()  # first touch of the memory
    rates: dict[str, list[float]] = {"reader alone": [], "step alone": [], "both together": []}
    shares = []
    for epoch in range(epochs):
        took = [
            seconds(lambda e=epoch: read(e)),
            seconds(compute),
            seconds(lambda e=epoch: both(e)),
        ]
        for name, value in zip(rates, took, strict=True):
            rates[name].append(len(tokens) / value)
        shares.append(max(took[:2]) / took[2])
    buffer = tokens.patches.held_bytes(order.buffer_rows) / 1e6
    print(
        f"{len(tokens)} rows of {L}×{D} fp16 ({tokens.patches.row_bytes * len(tokens) / 1e6:.0f} "
        f"MB), batch {batch}, {seeds} heads, {torch.get_num_threads()} threads; "
        f"{buffer:.0f} MB of tokens in memory"
    )
    for name, values in rates.items():
        print(f"  {name:<14} {statistics.median(values):8.0f} rows/s")
    low, high = min(shares), max(shares)
    print(f"  together / slower one {statistics.median(shares):.2f} ({low:.2f} to {high:.2f})")


def attention(batch: int, repeats: int) -> None:
    tokens, targets = torch.randn(batch, 1 + L, D), torch.arange(batch) % CLASSES
    plain, step = PlainHead(), Step(1)
    first = Batch(np.arange(batch), tokens[:, 0], tokens[:, 1:])

    def plainly() -> None:
        plain.zero_grad()
        F.cross_entropy(plain(tokens), targets).backward()

    stack = Step(HEADS)
    folded, together = [], []
    for _ in range(repeats):
        alone = seconds(lambda: step(first, targets))
        folded.append(seconds(plainly) / alone)
        together.append(seconds(lambda: stack(first, targets)) / alone)
    print(f"one training step of {batch} rows, time as a ratio")
    for name, ratios in (("torch's layers / folded", folded), (f"{HEADS} heads / one", together)):
        low, high = min(ratios), max(ratios)
        print(f"  {name:<24} {statistics.median(ratios):5.1f} ({low:.1f} to {high:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=1, help="heads trained together")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--plain-rows", type=int, default=64, help="rows of the second table")
    parser.add_argument("--dir", default=None, help="where to write; default the system's tmp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        store = make_store(Path(folder) / "store", options.rows)
        halves(store, options.batch, options.seeds, options.epochs)
    attention(options.plain_rows, 5)


if __name__ == "__main__":
    main()
