"""Segmentation heads against the plain ways of doing the same, as ratios measured in one run.

    python benchmarks/segmentation.py [--classes 209] [--width 768] [--crop 512] [--batch 4]

Training: one iteration on cached features, with reading alone, computing alone, and the plain
way (upsample the features 4×, convolve, upsample the logits, autograd) on the same batch. Several
heads in one pass, with one pass for each. Scoring: one image from sliding windows, with
mmsegmentation's procedure with full-size logits. A ratio of 2 means twice the time of ours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create, finish
from pa.data.views.windows import WindowsView, sliding
from pa.probe.segmentation.batches import TrainingWindows, token_features
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.loss import LabelTiles, UpsampledLoss
from pa.probe.segmentation.predict import SlidingPrediction
from pa.probe.segmentation.recipes import PAPER
from pa.probe.segmentation.train import HeadSpec, train_heads

PATCH = 16
STEPS = 2  # iterations that are timed as one


def upsample(maps: torch.Tensor, size: int, first: int = 1) -> torch.Tensor:
    """Upsample maps (B, C, g, g) to (B, C, size, size): bilinear by `first`, then to the size."""
    if first > 1:
        maps = F.interpolate(maps, scale_factor=first, mode="bilinear", align_corners=False)
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)


def make(folder: Path, n: int, width: int, crop: int, classes: int) -> tuple[Store, LabelMaps]:
    """A store of noise for n images whose pixels all have a label."""
    draw = np.random.default_rng(0)
    for kind in ("img", "ann"):
        (folder / kind / "train").mkdir(parents=True)
    for number in range(n):
        coarse = draw.integers(1, classes + 1, (16, 16), dtype=np.uint8)
        mask = Image.fromarray(coarse).resize((crop, crop), Image.Resampling.NEAREST)
        mask.save(folder / "ann" / "train" / f"{number}.png")
        mask.convert("RGB").save(folder / "img" / "train" / f"{number}.png")
    images = datasets.load("lip", "lip", folder, "train")
    view = WindowsView(crop=crop, stride=crop, test_short=crop)
    rows, tokens = view.rows(images), (crop // PATCH) ** 2
    spec = Spec(
        dataset="noise",
        split="train",
        view=view.to_json(),
        encoder={"name": "noise"},
        transform={},
        precision={"compute": "fp32", "storage": "fp16"},
        representations={"patch": [tokens, width]},
        rows={"n": len(rows), "n_images": n, "sha256": digest_rows(rows)},
    )
    store = create(folder / "store", spec, rows, {"root": str(folder)}, 64)
    for shard in store.missing():
        with claim(store, shard) as writer:
            block = draw.normal(size=(shard.n_rows, tokens, width)).astype(np.float32)
            writer.append({"patch": block}, np.ones(shard.n_rows, bool))
    finish(store)
    maps = LabelMaps("noise", tuple(f"class {i}" for i in range(classes)), folder)
    return Store.open(store.path), maps


def in_turns(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, after one that is not counted.

    One of each in every round, so that whatever else the machine does falls on all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(of) for name, of in times.items()}


def plain_step(features: Tensor, labels: Tensor, conv: torch.nn.Conv2d) -> None:
    """The paper's order, with autograd: features (B, D, g, g), labels (B, S, S)."""
    four = F.interpolate(features, scale_factor=4, mode="bilinear")
    logits = F.interpolate(conv(four), labels.shape[1:], mode="bilinear")
    F.cross_entropy(logits, labels, ignore_index=255).backward()


def training(args: argparse.Namespace, store: Store, maps: LabelMaps) -> None:
    recipe = replace(PAPER, iterations=STEPS, warmup=0, batch=args.batch)
    windows = TrainingWindows(WindowRows.of(store), [maps], "patch", args.batch, 0)
    batch, grid = windows.batch(0), windows.grid
    loss = UpsampledLoss(grid, PATCH, 4, torch.device("cpu"))
    weight = torch.randn(windows.width, args.classes) * recipe.init_std
    conv = torch.nn.Conv2d(windows.width, args.classes, 1)
    tokens = torch.from_numpy(batch.raw).float().transpose(1, 2).unflatten(2, (grid, grid))
    labels = torch.randint(0, args.classes, (args.batch, args.crop, args.crop))
    logits = torch.randn(args.batch, grid, grid, args.classes)
    tiles = LabelTiles.of(labels.to(torch.uint8), grid)

    def train(heads: int) -> None:
        train_heads(windows, [HeadSpec(0, 1e-4 * (i + 1)) for i in range(heads)], recipe)

    def read() -> None:
        for step in range(STEPS):
            windows.batch(step)

    def compute() -> None:
        for _ in range(STEPS):
            features = token_features(batch.raw, torch.device("cpu"))
            coarse = (features @ weight).view(-1, grid, grid, args.classes)
            _, gradient = loss.sums(coarse, batch.tiles[0])
            features.T @ gradient.flatten(0, 2)

    def whole() -> None:
        leaf = logits.clone().requires_grad_()
        F.cross_entropy(upsample(leaf.permute(0, 3, 1, 2), args.crop, 4), labels).backward()

    steps = in_turns(
        {
            "one head, features from disk": lambda: train(1),
            "reading features and labels alone": read,
            "computing alone": compute,
            "three heads in one pass": lambda: train(3),
        },
        args.repeats,
    )
    single = in_turns(
        {
            "upsample, convolve, upsample, autograd": lambda: plain_step(tokens, labels, conv),
            "loss by F.interpolate, autograd": whole,
            "loss of coarse logits": lambda: loss.sums(logits, tiles),
            "one head": lambda: train(1),
        },
        args.repeats,
    )
    per_step = {name: seconds / STEPS for name, seconds in steps.items()}
    first = per_step["one head, features from disk"]
    print(f"training, {args.batch} windows of {args.crop} pixels, {args.classes} classes:")
    for name, seconds in per_step.items():
        print(f"  {name:36} {seconds:8.3f} s   {seconds / first:5.2f}   {1 / seconds:7.2f} steps/s")
    plain, second = single["upsample, convolve, upsample, autograd"], single["one head"] / STEPS
    output = f"{plain:8.3f} s   {plain / second:5.2f}   {1 / plain:7.2f} steps/s"
    print(f"  upsample, convolve, upsample, autograd {output}")
    naive, ours = single["loss by F.interpolate, autograd"], single["loss of coarse logits"]
    print(f"  loss and gradient of coarse logits   {ours:8.3f} s    1.00")
    print(f"  the same by F.interpolate, autograd  {naive:8.3f} s   {naive / ours:5.2f}")
    saved = 3 * first / per_step["three heads in one pass"]
    print(f"  three passes of one head             {3 * first:8.3f} s   {saved:5.2f} of one pass")


def scoring(args: argparse.Namespace) -> None:
    canvas, size, grid = (683, 512), (683, 512), args.crop // PATCH
    windows = list(sliding(canvas, args.crop, max(1, 2 * args.crop // 3)))
    coarse = torch.randn(len(windows), grid, grid, args.classes)
    prediction = SlidingPrediction(windows, size, grid, 4)

    def plain() -> Tensor:
        total = torch.zeros(args.classes, canvas[1], canvas[0])
        count = torch.zeros(canvas[1], canvas[0])
        for window, logits in zip(windows, coarse, strict=True):
            x0, y0, x1, y1 = window.inside
            full = upsample(logits.permute(2, 0, 1)[None], window.size, 4)[0]
            total[:, y0:y1, x0:x1] += full[:, : y1 - y0, : x1 - x0]
            count[y0:y1, x0:x1] += 1
        resized = F.interpolate((total / count)[None], (size[1], size[0]), mode="bilinear")
        return resized[0].softmax(0).argmax(0)

    same = (prediction.classes(coarse) == plain().numpy()).mean()
    times = in_turns({"ours": lambda: prediction.classes(coarse), "plain": plain}, args.repeats)
    ours, reference = times["ours"], times["plain"]
    print(f"scoring an image of {size[0]}x{size[1]} pixels from {len(windows)} windows:")
    print(f"  two matrices, a few rows at a time   {ours:8.3f} s   1.00")
    print(f"  full-size logits of every window     {reference:8.3f} s   {reference / ours:.2f}")
    print(f"  pixels of equal class                {100 * same:8.3f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=209)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        store, maps = make(Path(folder), args.images, args.width, args.crop, args.classes)
        training(args, store, maps)
    scoring(args)


if __name__ == "__main__":
    main()
