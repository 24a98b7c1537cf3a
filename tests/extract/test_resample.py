"""Windows cut by integer arithmetic on tensors equal Pillow's, pixel for pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pa.data import datasets
from pa.data.views import VIEWS
from pa.extract import run
from pa.extract.encoding import upload, windows
from pa.extract.pixels import ImageJob, Loader, Stages
from pa.extract.stores import ExtractOptions
from tests.support.mean_colour import MeanColour
from tests.support.stores import same_files

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("side", "size"), [(56, 224), (56, 240), (57, 57), (30, 31), (100, 33), (224, 64), (1, 16)]
)
def test_equals_pillow(side: int, size: int, interpolation: str) -> None:
    generator = np.random.default_rng(side + size)
    canvases = generator.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    canvases[1] = 255 * (canvases[1] > 127)  # hard edges: the filter overshoots and is clipped
    of = generator.integers(0, 3, 9)
    corners = generator.integers(0, 224 - side + 1, (9, 2))
    actual = windows(
        torch.from_numpy(canvases),
        torch.from_numpy(of),
        torch.from_numpy(corners),
        side,
        size,
        interpolation,
    )
    assert actual.dtype == torch.uint8
    for window, canvas, (x, y) in zip(actual.numpy(), of, corners, strict=True):
        cut = Image.fromarray(canvases[canvas]).crop((x, y, x + side, y + side))
        expected = cut.resize((size, size), FILTERS[interpolation])
        np.testing.assert_array_equal(window, np.asarray(expected))


def test_canvases_and_corners_give_the_loaders_pixels(image_tree: Callable[..., Path]) -> None:
    root, view, encoder = image_tree(1, 2), VIEWS["grid"], MeanColour(48)
    boxes = [(0.0, 0.0, 56.0, 56.0), (28.0, 0.0, 84.0, 56.0), (168.0, 168.0, 224.0, 224.0)]
    jobs = [ImageJob(n, f"class0/{n}.png", 3 * n, boxes) for n in range(2)]
    pixels = []
    for canvases in (False, True):
        loader = Loader(root, view, [encoder.transform], Stages(), 1, canvases=canvases)
        with loader:
            cuts = [loaded.cuts[48,] for loaded in loader.ahead(jobs)]
        assert all((cut.corners is not None) == canvases for cut in cuts)
        parts = [cuts[0].part(0, 3), cuts[1].part(1, 3)]
        pixels.append(upload(parts, torch.device("cpu"), view, encoder.transform))
    assert pixels[0].shape == (5, 48, 48, 3)
    assert torch.equal(*pixels)


def test_store_is_independent_of_resampling_device(
    image_tree: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = datasets.load("photos", "folder", image_tree())
    (tmp_path / "photos" / "class1" / "2.png").write_bytes(b"torn")
    stores = []
    for on_device in (False, True):
        monkeypatch.setattr(run, "cuts_on_device", lambda *_, value=on_device: value)
        options = ExtractOptions(shard_rows=100, batch_size=32)
        encoders = [MeanColour(), MeanColour(64, name="other")]
        result = run.extract(encoders, images, VIEWS["grid"], tmp_path / str(on_device), options)
        stores.append([report.store.path for report in result.reports])
    assert all(same_files(item, two) for item, two in zip(*stores, strict=True))
