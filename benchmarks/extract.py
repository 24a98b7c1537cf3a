"""`pa extract` against the bare forward pass and a plain torch script, measured in turn in one run.

    python benchmarks/extract.py [--model base|tiny] [--views grid,image] [--device cpu|cuda]
                                 [--dtype fp32|bf16|fp16] [--images DIR] [--regions N]
                                 [--batch B] [--workers W] [--rounds R] [--processes]
                                 [--no-script]

Timed in every round, one after the other, the order turning from round to round:

- forward: the network alone, timm's `forward_features` on pixels that already lie normalised on
  the device, in batches of the same size and the same precision;
- decode: the images read, decoded and cut by as many threads as `pa extract` uses, and dropped;
  with `--processes` by as many worker processes too, which hand the pixels over in shared memory;
- pa: `Workspace.extract`, as the command calls it, into a fresh workspace;
- script: what one writes in an afternoon: a DataLoader with worker processes, torchvision's
  transforms, the same network, `numpy.save` at the end.

Speeds are regions per second. That of `pa` counts from the first image to the last shard on disk;
what comes once per run (loading the weights, listing the dataset, the manifest) is printed apart
and left out of the script's time too. Ratios are taken within a round; their median is printed,
with the extremes.

Two bounds are printed with them. Network and decoder, each on separate hardware, could run at
min(forward, decode). On a CPU they share the cores, and however they are arranged the seconds add
up: 1 / (1/forward + 1/decode), called `shared cores`.

Where the device is a CPU, `processor time` divides the processor seconds of the forward passes by
those of `pa`, all threads together: the share that reaches the network, whatever other programs
do to the clock. The line below adds the seconds of decoding, which cannot be saved either.
`network / pa` divides, within one and the same run of `pa`, the seconds that passed inside the
network by those of the run: a machine whose speed changes between two measurements cannot move it.

On a machine with other work, set OMP_WAIT_POLICY=passive as the command `pa` does for itself: else
torch's threads spin while they wait for one another, on cores that others could use.

Weights are random: the time of a forward pass does not depend on them. Without `--images` the
photographs of scikit-image are used, over and over.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.data import DataLoader, Dataset

from pa.commands import demo
from pa.data import datasets
from pa.data import images as im
from pa.data.images import Transform
from pa.data.views import VIEWS
from pa.extract import torchvision_ops
from pa.extract.encoders import load_encoder
from pa.extract.encoders.base import Trunk
from pa.extract.encoding import default_batch
from pa.extract.pixels import ImageJob, Loader, Stages
from pa.extract.stores import ExtractOptions
from pa.workspace import EncoderOptions, RegionSelector, Workspace

MODELS = {"tiny": "deit_tiny_patch16_224", "base": "deit_base_patch16_224"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REGIONS = {"cpu": {"tiny": 392, "base": 98}, "cuda": {"tiny": 98_000, "base": 49_000}}


class Case:
    """One view of one network on one device; every method gives the seconds that its way took."""

    def __init__(self, options: argparse.Namespace, view: str, folder: Path) -> None:
        self.options = options
        self.view = VIEWS[view]
        self.folder = folder
        self.name = f"timm/{MODELS[options.model]}"
        self.weights = folder / "random.safetensors"
        self.device = torch.device(options.device)
        self.per_image = 49 if view == "grid" else 1
        wanted = options.regions or REGIONS[self.device.type][options.model]
        self.images = datasets.load(
            "photos", "folder", link_images(folder / view, options.images, wanted // self.per_image)
        )
        self.n = len(self.images.table) * self.per_image
        self.workers = options.workers or min(8, os.cpu_count() or 1)
        self.stages = Stages()
        self.once: dict[str, float] = {}
        self.processor: dict[str, float] = {}  # seconds of all threads, in the last round
        self.network_share = 0.0  # of the last run of pa

    @cached_property
    def network(self) -> nn.Module:
        network = new_network(self.options.model)
        if not self.weights.exists():
            save_file(network.state_dict(), self.weights)
        return network.to(self.device, DTYPES[self.options.dtype])

    @cached_property
    def encoder_transform(self) -> Transform:
        encoder = load_encoder(self.name, self.weights, device=self.device, compute="fp32")
        self.batch = self.options.batch or default_batch(encoder, self.view)
        return encoder.transform

    @cached_property
    def jobs(self) -> list[ImageJob]:
        jobs = []
        for (image,), group in self.view.rows(self.images).group_by("image", maintain_order=True):
            boxes = list(group.select(self.view.cut_columns).iter_rows())
            jobs.append(ImageJob(int(image), group["path"][0], int(group["row"][0]), boxes))
        return jobs

    def forward(self, batches: int | None = None) -> float:
        shape = (self.batch, 3, self.encoder_transform.size, self.encoder_transform.size)
        pixels = torch.randn(shape).to(self.device, DTYPES[self.options.dtype])

        def work() -> None:
            for start in range(0, self.n, self.batch)[:batches]:
                self.network.forward_features(pixels[: self.n - start])
            self._synchronise()

        with torch.inference_mode():
            began = time.process_time()
            took = seconds(work)
        self.processor["forward"] = time.process_time() - began
        return took

    def decode(self) -> float:
        transforms = [self.encoder_transform]
        with Loader(self.images.root, self.view, transforms, Stages(), self.workers) as loader:
            began = time.process_time()
            took = seconds(lambda: drop(loader.ahead(self.jobs)))
        self.processor["decode"] = time.process_time() - began
        return took

    def decode_in_processes(self) -> float:
        regions = Regions(self.images.root, self.jobs, self.view, self.encoder_transform)
        loader = DataLoader(regions, batch_size=None, num_workers=self.workers)
        return seconds(lambda: drop(loader))

    def pa(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.folder) as workspace:
            work, started = Workspace(workspace), time.perf_counter()
            encoder = work.encoder(
                self.name,
                EncoderOptions(
                    checkpoint=self.weights, device=str(self.device), dtype=self.options.dtype
                ),
            )
            images, views = work.regions(
                RegionSelector(dataset="folder", root=self.images.root, views=(self.view.name,))
            )
            options = ExtractOptions(batch_size=self.options.batch or None, workers=self.workers)
            prepared = time.process_time()
            with inside_network() as inside:
                (result,) = work.extract([encoder], images, views, options)
            self.once["pa"] = time.perf_counter() - started - result.stages.wall
            self.processor["pa"] = time.process_time() - prepared
            self.stages = result.stages
            self.network_share = sum(inside) / result.stages.wall
            if result.reports[0].rows_encoded != self.n or result.bad:
                raise RuntimeError(f"{result.reports[0].rows_encoded} of {self.n} rows encoded")
        return result.stages.wall

    def script(self) -> float:
        began = time.perf_counter()
        network = new_network(self.options.model)
        network.to(self.device, DTYPES[self.options.dtype])
        files = sorted(path for path in self.images.root.rglob("*") if path.is_file())
        self.once["script"] = time.perf_counter() - began
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return seconds(lambda: self._script(network, files, Path(folder) / "features.npy"))

    def _script(self, network: nn.Module, files: list[Path], target: Path) -> None:
        dataset = Photographs(files, self.encoder_transform, self.per_image > 1)
        loader = DataLoader(
            dataset,
            batch_size=max(1, self.batch // self.per_image),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        collected = []
        with torch.inference_mode():
            for pixels in loader:
                batch = pixels.flatten(0, 1) if self.per_image > 1 else pixels
                tokens = network.forward_features(
                    batch.to(self.device, DTYPES[self.options.dtype], non_blocking=True)
                )
                kept = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
                collected.append(kept.float().cpu().numpy())
        np.save(target, np.concatenate(collected).astype(np.float16))

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Regions(Dataset[Tensor]):
    """The pixels of an image's regions, cut as `pa extract` cuts them."""

    def __init__(self, root: Path, jobs: list[ImageJob], view: object, transform: Transform):
        self.root, self.jobs, self.view, self.transform = root, jobs, view, transform

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> Tensor:
        job = self.jobs[number]
        image = im.decode((self.root / job.path).read_bytes(), job.path)
        canvas = self.view.canvas(image, self.transform)
        return torch.from_numpy(self.view.cut(canvas, job.boxes, self.transform))


class Photographs(Dataset[Tensor]):
    """Photographs through torchvision's transforms: whole, or as their 49 windows."""

    def __init__(self, files: list[Path], transform: Transform, windows: bool) -> None:
        from torchvision import transforms as T

        bicubic = T.InterpolationMode.BICUBIC
        self.files = files
        self.centre = T.Compose([T.Resize(transform.resize, bicubic), T.CenterCrop(224)])
        self.enlarge = T.Resize((transform.size, transform.size), bicubic)
        self.finish = T.Compose([T.ToTensor(), T.Normalize(transform.mean, transform.std)])
        self.windows = windows

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        image = self.centre(Image.open(self.files[number]).convert("RGB"))
        if not self.windows:
            return self.finish(image)
        starts = range(0, 169, 28)
        cuts = [image.crop((x, y, x + 56, y + 56)) for y in starts for x in starts]
        return torch.stack([self.finish(self.enlarge(cut)) for cut in cuts])


def new_network(model: str) -> nn.Module:
    torchvision_ops.ensure()
    import timm

    torch.manual_seed(0)
    return timm.create_model(MODELS[model], num_classes=0).eval()


def link_images(root: Path, source: Path | None, wanted: int) -> Path:
    """A folder of `wanted` images: links to those of `source`, or of scikit-image, in turn."""
    if source is None:
        package = importlib.util.find_spec("skimage")
        if package is None or package.origin is None:
            raise SystemExit("give --images DIR, or: pip install scikit-image")
        folder, names = demo.PHOTOGRAPHS["skimage"]
        files = [Path(package.origin).parent / folder / name for name in names]
    else:
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in im.IMAGE_SUFFIXES)
    if not files:
        raise SystemExit(f"no images in {source}")
    root.mkdir()
    for number, file in zip(range(max(1, wanted)), itertools.cycle(files), strict=False):
        (root / f"{number:06d}{file.suffix}").symlink_to(file.resolve())
    return root


@contextmanager
def inside_network() -> Iterator[list[float]]:
    """The seconds of every pass through an encoder's trunk: waiting for a GPU is not among them."""
    durations: list[float] = []
    began: list[float] = []

    def enter(module: nn.Module, _: object) -> None:
        if isinstance(module, Trunk):
            began.append(time.perf_counter())

    def leave(module: nn.Module, _: object, __: object) -> None:
        if isinstance(module, Trunk):
            durations.append(time.perf_counter() - began.pop())

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield durations
    finally:
        for hook in hooks:
            hook.remove()


def drop(items: object) -> None:
    for _ in items:  # type: ignore[attr-defined]
        pass


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def median(values: Sequence[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):8.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})"


def measure(case: Case) -> None:
    """Time every way in every round and print speeds, ratios and where the seconds went."""
    assert case.network is not None
    assert case.encoder_transform is not None
    methods = {"forward": case.forward, "decode": case.decode, "pa": case.pa}
    if not case.options.no_script:
        methods["script"] = case.script
    if case.options.processes:
        methods["decode in processes"] = case.decode_in_processes
    rounds: list[dict[str, float]] = []
    print(
        f"\n{case.view.name}: {len(case.jobs)} images, {case.n} regions, batches of {case.batch}, "
        f"{case.workers} workers",
        flush=True,
    )
    case.forward(1)  # first touch of memory and kernels
    names, loads = list(methods), []
    for number in range(case.options.rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        rounds.append({name: case.n / methods[name]() for name in turned})
        rounds[-1]["network"] = case.network_share
        rounds[-1] |= {f"processor of {method}": value for method, value in case.processor.items()}
        loads.append(load())
        speeds = ", ".join(f"{name} {rounds[-1][name]:.1f}" for name in names)
        print(f"  round {number + 1}: {speeds} regions/s; load {loads[-1]}", file=sys.stderr)
    for name in names:
        print(f"  {name:<34} {median([r[name] for r in rounds], 1)} regions/s")
    ratios: dict[str, Callable[[dict[str, float]], float]] = {
        "pa / forward": lambda r: r["pa"] / r["forward"],
        "pa / min(forward, decode)": lambda r: r["pa"] / min(r["forward"], r["decode"]),
        "pa / shared cores": lambda r: r["pa"] * (1 / r["forward"] + 1 / r["decode"]),
        "forward / pa, processor time": lambda r: r["processor of forward"] / r["processor of pa"],
        "(forward + decode) / pa, the same": lambda r: (
            (r["processor of forward"] + r["processor of decode"]) / r["processor of pa"]
        ),
    }
    if case.device.type == "cpu":
        ratios["network / pa, within a run"] = lambda r: r["network"]
    if not case.options.no_script:
        ratios["script / forward"] = lambda r: r["script"] / r["forward"]
        ratios["pa / script"] = lambda r: r["pa"] / r["script"]
    if case.options.processes:
        ratios["threads / processes, decoding"] = lambda r: r["decode"] / r["decode in processes"]
    for name, ratio in ratios.items():
        print(f"  {name:<34} {median([ratio(r) for r in rounds], 3)}")
    stages = case.stages
    split = ", ".join(f"{stage} {value:.2f}" for stage, value in stages.seconds.items())
    print(f"  seconds of the last run of pa: {split}; waited {stages.waited:.2f}; ", end="")
    print(f"wall {stages.wall:.2f}; limited by {stages.limit}")
    once = ", ".join(f"{name} {value:.1f} s" for name, value in case.once.items())
    print(f"  once per run, in no ratio: {once}; load average of the rounds {', '.join(loads)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--views", default="grid,image")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--images", type=Path, help="default: scikit-image's photographs")
    parser.add_argument("--regions", type=int, help="regions per way and round; default by model")
    parser.add_argument("--batch", type=int, default=0, help="default: what pa chooses")
    parser.add_argument("--workers", type=int, default=0, help="default: what pa chooses")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", action="store_true", help="also decode in processes")
    parser.add_argument("--no-script", action="store_true", help="leave the plain script out")
    options = parser.parse_args()
    device = (
        torch.cuda.get_device_name(options.device)
        if options.device.startswith("cuda")
        else f"{os.cpu_count()} cores, torch with {torch.get_num_threads()} threads"
    )
    waiting = os.environ.get("OMP_WAIT_POLICY", "not set")
    print(f"{MODELS[options.model]}, random weights, {options.dtype}, {device}, ", end="")
    print(f"OMP_WAIT_POLICY {waiting}; load {load()}")
    for view in options.views.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measure(Case(options, view, Path(folder)))


if __name__ == "__main__":
    main()
