"""Extraction on a GPU: the CPU's features and pixels, the memory limit, a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.extract.encoders import ENCODERS, Encoder, load_encoder
from pa.extract.encoding import Forward, encode_pixels, windows
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from tests.support.checkpoints import SIZE, official

pytestmark = pytest.mark.gpu

# Sums in another order: a few units in the last place of float32, grown by the depth of a network.
FP32_COSINE, FP32_DIFFERENCE = 1 - 1e-6, 2e-4
HALF_COSINE = {"bf16": 0.995, "fp16": 0.9999}  # 8 and 11 bits of mantissa


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a small random checkpoint in the official layout of a family."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.exists():
            torch.save(official(name), path)
        return path

    return write


def load(name: str, path: Path, device: str, compute: str = "fp32") -> Encoder:
    return load_encoder(name, path, num_heads=1, device=device, compute=compute)


def features_of(
    encoder: Encoder, root: Path, view: str, folder: Path, storage: str = "fp32"
) -> dict[str, np.ndarray]:
    images = datasets.load("photos", "folder", root)
    done = extract(
        [encoder], images, VIEWS[view], folder, ExtractOptions(storage=storage, shard_rows=100)
    )
    store = done.reports[0].store
    return {name: store.read(name) for name in store.spec.representations}


def cosines(first: np.ndarray, other: np.ndarray) -> np.ndarray:
    first, other = (a.astype(np.float64).reshape(-1, a.shape[-1]) for a in (first, other))
    return (first * other).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("view", ["image", "grid"])
@pytest.mark.parametrize("name", list(ENCODERS))
def test_features_equal_the_cpus(
    name: str,
    view: str,
    device: str,
    checkpoint: Callable[[str], Path],
    image_tree: Callable[..., Path],
    tmp_path: Path,
) -> None:
    root = image_tree(2, 2)
    on_cpu, on_device = (
        features_of(load(name, checkpoint(name), at), root, view, tmp_path / at)
        for at in ("cpu", device)
    )
    assert set(on_cpu) == set(on_device)
    for representation, expected in on_cpu.items():
        actual = on_device[representation]
        assert cosines(expected, actual).min() > FP32_COSINE, representation
        largest = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, atol=FP32_DIFFERENCE * largest, rtol=0)


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_half_precision_keeps_directions(
    compute: str,
    device: str,
    checkpoint: Callable[[str], Path],
    image_tree: Callable[..., Path],
    tmp_path: Path,
) -> None:
    root, path = image_tree(2, 2), checkpoint("dino")
    full, half = (
        features_of(load("dino", path, device, c), root, "image", tmp_path / c)
        for c in ("fp32", compute)
    )
    for representation in ("cls", "pooled"):
        actual = cosines(full[representation], half[representation])
        assert HALF_COSINE[compute] < actual.min() < 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("side", "size"), [(56, 224), (56, 240), (30, 31), (100, 33), (57, 57)])
def test_windows_equal_pillows_pixels(
    side: int, size: int, interpolation: str, device: str
) -> None:
    generator = np.random.default_rng(side + size)
    canvases = generator.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    canvases[1] = 255 * (canvases[1] > 127)  # hard edges: the filter overshoots and is clipped
    of, corners = generator.integers(0, 3, 49), generator.integers(0, 224 - side + 1, (49, 2))
    tensors = (torch.from_numpy(a).to(device) for a in (canvases, of, corners))
    actual = windows(*tensors, side, size, interpolation).cpu().numpy()
    for window, canvas, (x, y) in zip(actual, of, corners, strict=True):
        cut = Image.fromarray(canvases[canvas]).crop((x, y, x + side, y + side))
        expected = cut.resize((size, size), Image.Resampling[interpolation.upper()])
        np.testing.assert_array_equal(window, np.asarray(expected))


def test_batch_beyond_memory_is_halved(device: str, checkpoint: Callable[[str], Path]) -> None:
    if not device.startswith("cuda"):
        pytest.skip("only a GPU has memory of its own to fill")
    encoder = load("dino", checkpoint("dino"), device)
    pixels = np.random.default_rng(0).integers(0, 256, (4096, SIZE, SIZE, 3), dtype=np.uint8)
    expected = np.concatenate(
        [encode_pixels(encoder, part, ["cls"])["cls"] for part in np.split(pixels, 64)]
    )
    on_device = torch.from_numpy(pixels).to(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encode_pixels(encoder, pixels[:512], ["cls"])
    room = before + 2 * (torch.cuda.max_memory_allocated() - before)  # a quarter of the batch
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(room / total, device)
    try:
        with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
            encoder.encode(encoder.normalise(on_device), ["cls"])
        torch.cuda.empty_cache()
        actual = Forward(encoder, ["cls"]).begin(on_device).arrays()["cls"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert cosines(expected, actual).min() > FP32_COSINE


def test_killed_extraction_resumes_to_same_bytes(
    device: str, checkpoint: Callable[[str], Path], image_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = image_tree(4, 6)

    def command(workspace: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pa", "--workspace", str(tmp_path / workspace), "extract"),
            *("--encoder", "dino", "--checkpoint", str(checkpoint("dino")), "--device", device),
            *("--num-heads", "1"),
            *("--dataset", "folder", "--root", str(root), "--view", "grid", "--shard-rows", "49"),
        ]

    def shards(workspace: str) -> dict[str, bytes]:
        paths = sorted((tmp_path / workspace).rglob("shard-*.h5"))
        return {path.name: path.read_bytes() for path in paths}

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for folder in ("killed", "undisturbed"):
        (tmp_path / folder).mkdir()
    process = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(shards("killed")) < 2:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert 0 < len(shards("killed")) < 24
    for folder in ("killed", "undisturbed"):
        subprocess.run(command(folder), env=environment, check=True, capture_output=True)
    assert len(shards("killed")) == 24
    assert shards("killed") == shards("undisturbed")
    (path,) = (tmp_path / "killed" / "features").glob("*/*/*/*/*")
    assert Store.open(path).n_rows == 24 * 49
