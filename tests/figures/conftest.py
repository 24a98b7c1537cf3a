"""A workspace with stores of two encoders over the same windows of small photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from pa.data.schema import Images
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from tests.support.images import noise_image
from tests.support.vectors import PER_IMAGE, write_store

N_IMAGES = 4


def cloud(seed: int, n_images: int = N_IMAGES, width: int = 8) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(PER_IMAGE * n_images, width)).astype(np.float32)


def size_of(path: Path | str) -> tuple[int, int]:
    with Image.open(path) as file:
        return file.size


def pixels_of(path: Path | str) -> npt.NDArray[np.int64]:
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"), np.int64)


def metadata_of(path: Path | str) -> dict[str, str]:
    """The texts in a PNG."""
    with Image.open(path) as file:
        return dict(file.text)  # type: ignore[attr-defined]


def photographs(folder: Path, n_images: int = N_IMAGES) -> Images:
    folder.mkdir(exist_ok=True)
    paths = [f"val_{number:04d}.png" for number in range(n_images)]
    for number, path in enumerate(paths):
        noise_image(number, (260, 256)).save(folder / path, compress_level=0)
    table = pl.DataFrame(
        {
            "image": range(n_images),
            "path": paths,
            "label": ["bird"] * n_images,
            "label_id": [0] * n_images,
            "file_bytes": [1] * n_images,
        }
    )
    return Images("toy", "val", folder, table)


@pytest.fixture
def two_encoders(in_empty_folder: Path) -> dict[str, Store]:
    """`dino` keeps projected vectors too, `deit` does not."""
    images, features = photographs(in_empty_folder / "photos"), in_empty_folder / "features"
    pooled, projected = cloud(1), cloud(2)
    return {
        "dino": write_store(
            features, images, VIEWS["grid"], {"pooled": pooled, "projected": projected}, "dino"
        ),
        "deit": write_store(features, images, VIEWS["grid"], {"pooled": cloud(3)}, "deit"),
    }
