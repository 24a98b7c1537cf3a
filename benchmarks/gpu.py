"""Every claim about a GPU, measured by one command in at most eight minutes.

    python benchmarks/gpu.py [--device cuda] [--out FOLDER] [--only PART,PART]
    python benchmarks/gpu.py --small --device cpu      # the same code at toy sizes; part of CI

Needs a checkout, no network, and torch, timm, h5py, numpy, pillow, scikit-learn, scipy, click,
rich, filelock, xxhash, safetensors, pytest, polars, pydantic and pydantic-settings. faiss-gpu is
used if it is installed; without it the part `faiss` records that it did not run.

Each part is a process of its own with a limit on its time, so that none depends on another. Every
measurement is appended to FOLDER/gpu.jsonl as soon as it exists, and FOLDER/gpu.md, a Markdown
table, is written again after each part: a run that is cut short keeps what it measured. The exit
code is 0 if every part ended without an error within its limit.

Weights are random: the time of a forward pass does not depend on them. Ratios compare
measurements of the same run. Peak memory is torch's own count of allocated device memory, and the
resident memory of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # pa itself need not be installed

GFLOP_PER_IMAGE = 35.2  # ViT-B/16 at 224, two operations per multiplication and addition
# Dense peaks in TFLOP/s of the vendor's data sheets: tensor cores for bf16 and fp16, none for fp32.
PEAKS = {
    "H200": {"bf16": 989.0, "fp16": 989.0, "fp32": 67.0},
    "H100": {"bf16": 989.0, "fp16": 989.0, "fp32": 67.0},
    "A100": {"bf16": 312.0, "fp16": 312.0, "fp32": 19.5},
}
SECONDS = {  # limit of each part; together eight minutes
    "tests": 80,
    "bf16": 85,
    "fp16": 30,
    "fp32": 40,
    "compile": 50,
    "processes": 50,
    "ap": 60,
    "faiss": 60,
    "heads": 25,
}
SMALL_SECONDS = 300  # limit of each part on two CPU cores
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Sizes:
    """How much work: what a GPU does in a few seconds, or what CI can afford."""

    model: str
    seconds: float  # of a timed pass
    batches: tuple[int, ...]
    most_images: int  # files of a dataset
    ap: tuple[int, ...]
    ap_targets: tuple[float, ...]
    faiss_rows: int
    attentive_batch: int
    sweep_rows: int
    sweep_epochs: int
    crop: int
    segmentation_classes: int


FULL = Sizes(
    model="vit_base_patch16_224",
    seconds=3.0,
    batches=(32, 64, 128, 256, 512, 1024, 2048),
    most_images=48_000,
    ap=(30_543, 200_000),
    ap_targets=(1.0, 60.0),
    faiss_rows=2_450_000,
    attentive_batch=256,
    sweep_rows=15_000,
    sweep_epochs=10,
    crop=512,
    segmentation_classes=209,
)
SMALL = Sizes(
    model="test_vit",
    seconds=0.2,
    batches=(8, 16),
    most_images=60,
    ap=(500, 1_000),
    ap_targets=(1.0, 60.0),
    faiss_rows=5_000,
    attentive_batch=8,
    sweep_rows=300,
    sweep_epochs=2,
    crop=64,
    segmentation_classes=5,
)


class Run:
    """What a part needs: sizes, device, a folder to work in, and where measurements go."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.part: str = options.part
        self.small: bool = options.small
        self.device = torch.device(options.device)
        self.size = SMALL if options.small else FULL
        self.lines = options.out / "gpu.jsonl"
        self.folder = folder

    def record(
        self, what: str, value: float, unit: str, note: str = "", target: str = "", met: bool = True
    ) -> None:
        """Append one measurement. `target` states a goal and `met` whether it was reached."""
        line = {"part": self.part, "what": what, "value": value, "unit": unit, "note": note}
        if target and not self.small:
            line |= {"target": target, "met": met}
        with self.lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{what}: {value:,.4g} {unit} {note}", flush=True)

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds of a call, the device's work included."""
        self.synchronise()
        began = time.perf_counter()
        work()
        self.synchronise()
        return time.perf_counter() - began

    def each(self, work: Callable[[], object], least: int = 3) -> float:
        """Mean seconds of a call that is repeated for a while, after one that is not counted."""
        work()
        once = self.seconds(work)
        repeats = max(least, int(self.size.seconds / 2 / once))
        return self.seconds(lambda: [work() for _ in range(repeats)]) / repeats

    @cached_property
    def weights(self) -> Path:
        """A file of random weights of the network."""
        from safetensors.torch import save_file

        path = self.folder / "random.safetensors"
        save_file(new_network(self.size.model).state_dict(), path)
        return path

    def encoder(self, dtype: str) -> Any:
        from pa.extract.encoders import load_encoder

        name = f"timm/{self.size.model}"
        return load_encoder(name, self.weights, device=self.device, compute=dtype)

    def images(self, name: str, files: list[Path], n: int) -> Any:
        """A dataset of n images: links to the given files, over and over."""
        from pa.data import datasets

        n = max(1, min(n, self.size.most_images))
        folder = self.folder / name / "all"
        folder.mkdir(parents=True)
        for number in range(n):
            os.link(files[number % len(files)], folder / f"{number:06d}{files[0].suffix}")
        return datasets.load("photos", "folder", folder.parent)


def new_network(model: str) -> Any:
    from pa.extract import torchvision_ops

    torchvision_ops.ensure()
    import timm

    return timm.create_model(model, num_classes=0).eval().requires_grad_(False)


# -- the tests that need a GPU --------------------------------------------------------------------


def tests(run: Run) -> None:
    report = run.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    # The project's own options name plugins that need not be installed here.
    command += ["-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default"]
    command += ["-p", "no:cacheprovider", "--junitxml", str(report)]
    environment = {**os.environ, "TEST_DEVICE": str(run.device)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, check=False)
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    run.record("tests passed", counts["tests"] - failed - counts["skipped"], "tests")
    run.record("tests failed", failed, "tests", target="0", met=failed == 0)
    skipped = counts["skipped"]
    run.record("tests skipped", skipped, "tests", target="0", met=skipped == 0)
    if done.returncode:
        raise RuntimeError(f"pytest ended with exit code {done.returncode}")


# -- extraction -----------------------------------------------------------------------------------


@contextlib.contextmanager
def prepared_canvases(side: int) -> Iterator[None]:
    """Let the decoder return a canvas that is ready, so that no time goes into decoding."""
    from pa.data import images as im

    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    canvas = Image.fromarray(noise)
    with mock.patch.object(im, "decode", return_value=canvas):
        yield


def one_pixel(folder: Path) -> list[Path]:
    path = folder / "pixel.png"
    Image.new("RGB", (1, 1)).save(path)
    return [path]


def photographs() -> list[Path]:
    """The JPEG files that scikit-learn ships: 640×427 pixels."""
    import sklearn.datasets

    return sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


def bare_forward(run: Run, network: Any, dtype: str, batch: int) -> float:
    """Images per second of the network alone, on pixels that are on the device already."""
    from pa.evaluate.devices import full_precision

    size = network.patch_embed.img_size[0]
    pixels = torch.randn(batch, 3, size, size).to(run.device, DTYPES[dtype])
    with torch.inference_mode(), full_precision():
        return batch / run.each(lambda: network.forward_features(pixels))


def extract_rows(run: Run, encoder: Any, images: Any, view: str, batch: int) -> tuple[float, Any]:
    """Rows per second of `pa extract`, from the first image to the last shard on disk."""
    from pa.data.views import VIEWS
    from pa.extract.run import extract
    from pa.extract.stores import ExtractOptions

    with tempfile.TemporaryDirectory(dir=run.folder) as features:
        options = ExtractOptions(batch_size=batch)
        result = extract([encoder], images, VIEWS[view], Path(features), options)
    report = result.reports[0]
    if report.rows_encoded != report.store.n_rows:
        raise RuntimeError(f"{report.rows_encoded} of {report.store.n_rows} rows encoded")
    return report.rows_encoded / result.stages.wall, result.stages


def extraction(run: Run) -> None:
    from pa.data.views import VIEWS
    from pa.extract.encoding import default_batch

    dtype, network = run.part, new_network(run.size.model)
    network.to(run.device, DTYPES[dtype])
    encoder = run.encoder(dtype)
    batch = default_batch(encoder, VIEWS["image"])
    forward = bare_forward(run, network, dtype, batch)
    run.record("bare forward", forward, "images/s", f"batch {batch}")
    device = torch.cuda.get_device_name() if run.device.type == "cuda" else ""
    peak = next((of[dtype] for name, of in PEAKS.items() if name in device), None)
    if peak and not run.small:
        share = forward * GFLOP_PER_IMAGE / (1000 * peak)
        run.record("share of the dense peak, bare forward", share, "", f"{peak:g} TFLOP/s")
    files = one_pixel(run.folder)
    for view, per_image, side in (
        ("image", 1, encoder.transform.resize),
        ("grid", 49, VIEWS["grid"].resize),
    ):
        n = int(forward * run.size.seconds / per_image)
        images = run.images(f"canvases-{view}", files, n)
        with prepared_canvases(side):
            speed, stages = extract_rows(run, encoder, images, view, batch)
        ratio = speed / forward
        note = f"{ratio:.3f} of the bare forward; limited by {stages.limit}"
        goals = ["≥ 0.95 of the forward"]
        met = ratio >= 0.95
        if dtype == "bf16" and view == "image":
            goals.append("≥ 12,000 images/s")
            met = met and speed >= 12_000
        what = f"pa without decoding, view {view}"
        run.record(what, speed, "rows/s", note, ", ".join(goals), met)
    if dtype != "bf16":
        return
    for view, per_image in (("image", 1), ("grid", 49)):
        n = int(min(forward / per_image, 4000) * run.size.seconds)
        images = run.images(f"jpegs-{view}", photographs(), n)
        speed, stages = extract_rows(run, encoder, images, view, batch)
        note = f"{speed / forward:.3f} of the bare forward; limited by {stages.limit}"
        run.record(f"pa on JPEG files, view {view}", speed, "rows/s", note)
    best = max((bare_forward(run, network, dtype, b), b) for b in run.size.batches)
    note = f"batch {best[1]}; the default {batch} gives {forward / best[0]:.3f} of it"
    run.record("bare forward at the best batch", best[0], "images/s", note)


def compiled(run: Run) -> None:
    """`torch.compile` and a CUDA graph against the eager forward pass, and what they change."""
    from pa.evaluate.devices import full_precision
    from pa.extract.encoding import GPU_BATCH

    batch = run.size.batches[0] if run.small else GPU_BATCH
    network = new_network(run.size.model).to(run.device, torch.bfloat16)
    size = network.patch_embed.img_size[0]
    pixels = torch.randn(batch, 3, size, size).to(run.device, torch.bfloat16)

    def compare(what: str, forward: Callable[[], torch.Tensor]) -> None:
        actual = forward()[:, 0].float()
        cosine = torch.nn.functional.cosine_similarity(actual, expected).min().item()
        speed = batch / run.each(forward)
        note = f"{speed / eager:.3f} of eager; smallest cosine of cls {cosine:.6f}"
        run.record(what, speed, "images/s", note)

    with torch.inference_mode(), full_precision():
        expected = network.forward_features(pixels)[:, 0].float()
        eager = batch / run.each(lambda: network.forward_features(pixels))
        run.record("eager, bf16", eager, "images/s", f"batch {batch}")
        if run.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = network.forward_features(pixels)

            def replay() -> torch.Tensor:
                graph.replay()
                return out

            compare("CUDA graph, bf16", replay)
        module = torch.compile(network.forward_features)
        compare("torch.compile, bf16", lambda: module(pixels))


# -- several processes ----------------------------------------------------------------------------


def processes(run: Run) -> None:
    """Two and four processes that fill one store on one GPU, against one process."""
    canvases = run.size.most_images if not run.small else 40
    images = run.images("canvases", one_pixel(run.folder), canvases)
    alone = 0.0
    for count in (1, 2, 4):
        features = run.folder / f"features-{count}"
        command = [sys.executable, __file__, "--worker", str(images.root), str(features)]
        command += [str(run.weights), run.size.model, str(run.device)]
        workers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        try:
            for worker in workers:  # wait until each has loaded its encoder
                assert worker.stdout is not None
                if worker.stdout.readline() != "ready\n":
                    raise RuntimeError("a worker did not start")
            began = time.perf_counter()
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("go\n")
                worker.stdin.flush()
            memory = 0.0
            for worker in workers:
                memory += float(worker.communicate()[0])
                if worker.returncode:
                    raise RuntimeError(f"a worker ended with exit code {worker.returncode}")
            speed = len(images.table) / (time.perf_counter() - began)
        finally:
            for worker in workers:
                worker.kill()
        alone = alone or speed
        note = f"{speed / alone:.2f} of one; {memory / 1e9:.2f} GB of device memory in all"
        run.record(f"{count} processes, bf16, view image", speed, "rows/s", note)


def work(root: str, features: str, weights: str, model: str, device: str) -> None:
    """One of several processes: says "ready", waits for a line, extracts, prints its peak."""
    from pa.data import datasets
    from pa.data.views import VIEWS
    from pa.extract.encoders import load_encoder
    from pa.extract.run import extract

    encoder = load_encoder(f"timm/{model}", weights, device=device, compute="bf16")
    images = datasets.load("photos", "folder", Path(root))
    print("ready", flush=True)
    sys.stdin.readline()
    with prepared_canvases(encoder.transform.resize):
        extract([encoder], images, VIEWS["image"], Path(features))
    print(torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0)


# -- scores ---------------------------------------------------------------------------------------


def average_precision(run: Run) -> None:
    import retrieval
    from sklearn.metrics import average_precision_score

    from pa.evaluate.retrieval import evaluate_all_pairs

    for n, goal in zip(run.size.ap, run.size.ap_targets, strict=True):
        features, labels = retrieval.data(n, 768)
        evaluate_all_pairs(features[:1000], labels[:1000], device=str(run.device))
        began = time.perf_counter()
        ap = evaluate_all_pairs(features, labels, device=str(run.device)).ap
        took = time.perf_counter() - began
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        gaps = []
        for query in np.random.default_rng(1).choice(n, 64, replace=False).tolist():
            others = np.arange(n) != query
            relevant = labels[others] == labels[query]
            expected = average_precision_score(relevant, (units @ units[query])[others])
            gaps.append(abs(expected - ap[query]))
        # Another matrix product rounds otherwise, so neighbours whose cosines nearly tie may swap.
        same = max(gaps) < 1e-3 and np.mean(gaps) < 1e-5
        note = f"to scikit-learn, 64 queries: mean {np.mean(gaps):.0e}, largest {max(gaps):.0e}"
        met = took < goal and same
        run.record(f"AP of all pairs, {n} × 768", took, "s", note, f"< {goal:g} s", met)
        plain = argsort_seconds(run, units, labels)
        note = f"{plain / took:.1f} × ours; scaled from blocks of 256 queries"
        run.record(f"torch argsort in blocks, {n} × 768", plain, "s", note)


def argsort_seconds(run: Run, units: np.ndarray, labels: np.ndarray) -> float:
    """Seconds that plain torch takes for all queries, scaled from one block of them."""
    from pa.evaluate.devices import full_precision

    gallery = torch.from_numpy(units).to(run.device)
    target = torch.from_numpy(labels).to(run.device)
    rank = torch.arange(1, len(units) + 1, device=run.device)
    block = rank[:256] - 1

    def score() -> None:
        order = (gallery[block] @ gallery.T).argsort(dim=1, descending=True)
        hits = target[order] == target[block][:, None]
        (hits.cumsum(1) / rank * hits).sum(1) / hits.sum(1)

    with full_precision():
        return run.each(score) * len(units) / len(block)


def faiss_search(run: Run) -> None:
    try:
        import faiss
    except ImportError:
        run.record("faiss", 0, "runs", "not installed")
        return
    on_gpu = hasattr(faiss, "StandardGpuResources") and run.device.type == "cuda"
    if not on_gpu:
        run.record("faiss with GPU support", 0, "runs", "not installed; the CPU's indexes below")
    n, width, k = run.size.faiss_rows, 768, 24
    draw = np.random.default_rng(0)
    centres = torch.from_numpy(draw.standard_normal((max(10, n // 500), width), np.float32))
    centres = centres.to(run.device)
    blocks = range(0, n, 50_000)

    def rows(start: int) -> np.ndarray:
        generator = torch.Generator(run.device).manual_seed(start)
        count = min(50_000, n - start)
        values = {"generator": generator, "device": run.device}
        of = torch.randint(0, len(centres), (count,), **values)
        vectors = centres[of] + torch.randn(count, width, **values)
        return torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()

    queries = rows(0)[:256]
    flat = faiss.IndexScalarQuantizer(
        width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    for start in blocks:
        flat.add(rows(start))
    _, exact = flat.search(queries[:32], k)
    lists = 1024 if not run.small else 16
    quantizer = faiss.IndexFlatIP(width)
    ivf = faiss.IndexIVFScalarQuantizer(
        quantizer, width, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    ivf.train(rows(0)[: 64 * lists])
    for start in blocks:
        ivf.add(rows(start))
    ivf.nprobe = 16
    resources = faiss.StandardGpuResources() if on_gpu else None
    for name, index in (("Flat fp16", flat), ("IVF fp16", ivf)):
        first = run.each(lambda index=index: index.search(queries[:1], k))
        existing = index
        if resources is not None:
            run.record(f"{name} on the CPU, 1 query", 1000 * first, "ms", f"{n} × {width}")
            options = faiss.GpuClonerOptions()
            options.useFloat16 = True
            existing = faiss.index_cpu_to_gpu(resources, run.device.index or 0, index, options)
        for count in (1, 256):
            asked = queries[:count]
            took = run.each(lambda existing=existing, asked=asked: existing.search(asked, k))
            folder, plural = "GPU" if on_gpu else "CPU", "query" if count == 1 else "queries"
            note = f"{n} × {width}"
            if on_gpu and count == 1:
                note += f", {first / took:.1f} times as fast as on the CPU"
            run.record(f"{name} on the {folder}, {count} {plural}", 1000 * took, "ms", note)
        _, actual = existing.search(queries[:32], k)
        shared = [
            len(set(a) & set(b)) / k for a, b in zip(actual.tolist(), exact.tolist(), strict=True)
        ]
        run.record(
            f"{name}, recall@{k}", float(np.mean(shared)), "", "against the CPU's exact search"
        )


def heads(run: Run) -> None:
    """Training steps of the attentive and segmentation heads against plain torch, and a sweep."""
    import segmentation
    import streaming
    import sweep

    from pa.probe.attentive.tokens import Batch
    from pa.probe.linear.recipes import PAPER
    from pa.probe.linear.train import train_stack
    from pa.probe.segmentation.loss import LabelTiles, UpsampledLoss

    B, L, D, device = run.size.attentive_batch, streaming.L, streaming.D, run.device
    tokens = torch.randn(B, 1 + L, D, device=device)
    targets = (torch.arange(B) % streaming.CLASSES).to(device)
    step, plain = streaming.Step(1, device), streaming.PlainHead().to(device)
    batch = Batch(np.arange(B), tokens[:, 0], tokens[:, 1:])

    def plainly() -> None:
        plain.zero_grad()
        torch.nn.functional.cross_entropy(plain(tokens), targets).backward()

    ours, reference = run.each(lambda: step(batch, targets)), run.each(plainly)
    run.record("attentive head, one step", 1000 * ours, "ms", f"{B} rows of {1 + L} tokens")
    run.record(
        "the same by torch's layers", 1000 * reference, "ms", f"{reference / ours:.1f} × ours"
    )

    crop, classes = run.size.crop, run.size.segmentation_classes
    grid, n = crop // segmentation.PATCH, 4
    features = torch.randn(n * grid * grid, D, device=device)
    labels = torch.randint(0, classes, (n, crop, crop))
    weight = torch.randn(D, classes, device=device)
    loss = UpsampledLoss(grid, segmentation.PATCH, 4, device)
    tiles = LabelTiles.of(labels.to(torch.uint8), grid).to(device)
    conv = torch.nn.Conv2d(D, classes, 1).to(device)
    maps = features.view(n, grid, grid, D).permute(0, 3, 1, 2)
    on_device = labels.to(device)

    def tiled() -> None:
        coarse = (features @ weight).view(n, grid, grid, classes)
        _, gradient = loss.sums(coarse, tiles)
        features.T @ gradient.flatten(0, 2)

    ours = run.each(tiled)
    reference = run.each(lambda: segmentation.plain_step(maps, on_device, conv))
    note = f"{n} windows of {crop} pixels, {classes} classes"
    run.record("segmentation head, one step", 1000 * ours, "ms", note)
    run.record(
        "the same by F.interpolate", 1000 * reference, "ms", f"{reference / ours:.1f} × ours"
    )

    for classes in (4, 100):
        train = sweep.data(run.size.sweep_rows, D, classes, 0)
        read = {"cls": (train, sweep.data(classes, D, classes, 1))}.__getitem__
        recipe = replace(PAPER, epochs=run.size.sweep_epochs)
        fits = {
            count: partial(
                train_stack, read, sweep.stack(count), recipe, monitored=False, device=str(device)
            )
            for count in (1, 50)
        }
        for fit in fits.values():  # the first call pays for thread pools and memory
            fit()
        took = {count: run.seconds(fit) for count, fit in fits.items()}
        note = f"{took[50] / took[1]:.2f} × one head; {len(train.rows)} × {D}, {classes} classes"
        run.record("sweep of 50 linear heads", took[50], "s", note)


PARTS: dict[str, Callable[[Run], None]] = {
    "tests": tests,
    "bf16": extraction,
    "fp16": extraction,
    "fp32": extraction,
    "compile": compiled,
    "processes": processes,
    "ap": average_precision,
    "faiss": faiss_search,
    "heads": heads,
}


# -- the parent -----------------------------------------------------------------------------------


def run_part(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        run = Run(options, Path(folder))
        PARTS[options.part](run)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    note = f"resident {resident:.1f} GiB"
    if run.device.type == "cuda":
        run.record("peak device memory", torch.cuda.max_memory_allocated() / 2**30, "GiB", note)
    else:
        run.record("peak device memory", 0, "GiB", note)


def run_all(options: argparse.Namespace) -> int:
    names = options.only.split(",") if options.only else list(PARTS)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "gpu.jsonl"
    lines.unlink(missing_ok=True)
    ended: dict[str, str] = {}
    for name in names:
        limit = SMALL_SECONDS if options.small else SECONDS[name]
        command = [sys.executable, __file__, "--part", name, "--device", options.device]
        command += ["--out", str(options.out)] + ["--small"] * options.small
        command += ["--dir", options.dir] if options.dir else []
        began = time.perf_counter()
        print(f"\n=== {name}, at most {limit} s", flush=True)
        try:
            code = subprocess.run(command, timeout=limit, check=False).returncode
            ended[name] = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            ended[name] = f"stopped at its limit of {limit} s"
        ended[name] += f", {time.perf_counter() - began:.0f} s"
        (options.out / "gpu.md").write_text(table(lines, ended, options))
    print("\n" + (options.out / "gpu.md").read_text())
    return 0 if all(state.startswith("done") for state in ended.values()) else 1


def table(lines: Path, ended: dict[str, str], options: argparse.Namespace) -> str:
    """The measurements as Markdown, under the date, the device and the versions."""
    on_gpu = options.device.startswith("cuda") and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {os.cpu_count()} cores"
    head = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with `python benchmarks/gpu.py"
        f"{' --small' * options.small} --device {options.device}` on {device}; torch "
        f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}, Python "
        f"{platform.python_version()}.",
        "",
        "| part | what | value | | goal |",
        "|---|---|---:|---|---|",
    ]
    body = []
    for text in lines.read_text().splitlines() if lines.exists() else []:
        line = json.loads(text)
        goal = ""
        if "target" in line:
            goal = f"{line['target']}: {'met' if line['met'] else 'missed'}"
        number = line["value"]
        value = f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"
        cells = [line["part"], line["what"], f"{value} {line['unit']}", line["note"], goal]
        body.append("| " + " | ".join(cells) + " |")
    states = ["", *(f"- `{name}`: {state}" for name, state in ended.items())]
    return "\n".join([*head, *body, *states]) + "\n"


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="toy sizes, for CI")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"))
    parser.add_argument("--dir", help="folder for temporary files; default the system's")
    parser.add_argument("--only", help="parts, by comma")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.absolute()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; try --small --device cpu")
    if options.part:
        run_part(options)
        return 0
    return run_all(options)


if __name__ == "__main__":
    sys.exit(main())
