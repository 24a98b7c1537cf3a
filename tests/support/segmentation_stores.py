"""A small dataset of images with label maps, and stores whose features know the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pa.data import datasets
from pa.data.datasets.segmentation.masks import read
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.data.store.shards import BadImage
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create, finish
from pa.data.views.windows import WindowsView, windows_in
from pa.probe.segmentation.labels import LabelMaps
from pa.probe.segmentation.predict import label_shares

CLASSES, GRID, CROP = 19, 4, 32
VIEW = WindowsView(
    crop=CROP, stride=21, test_long=999, test_short=CROP, train_long=999, train_short=CROP
)
SIZES = ((64, 48), (40, 60), (48, 48), (90, 41), (33, 70), (64, 64))  # widths and heights

Floats = npt.NDArray[np.float32]


def draw_mask(seed: int, size: tuple[int, int], used: Sequence[int]) -> npt.NDArray[np.uint8]:
    """A label map of four rectangles of classes, with an ignored border line between them."""
    draw = np.random.default_rng(seed)
    width, height = size
    ids = draw.choice(used, 4)
    values = np.zeros((height, width), np.uint8)
    x, y = width // 2, height // 2
    for folder, box in zip(
        ids.tolist(),
        ((0, y - 1, 0, x - 1), (0, y - 1, x, width), (y, height, 0, x - 1), (y, height, x, width)),
        strict=True,
    ):
        values[box[0] : box[1], box[2] : box[3]] = folder + 1
    return values


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A built tree in the layout of every dataset with label maps; kind lip, 19 classes."""
    root = tmp_path / "data"
    for split, first in (("train", 0), ("val", 100)):
        for folder in ("img", "ann"):
            (root / folder / split).mkdir(parents=True)
        for number, size in enumerate(SIZES):
            values = draw_mask(first + number, size, used=(0, 1, 2, 5))
            pixels = np.stack([values * 11, values * 7, 255 - values * 9], axis=-1)
            Image.fromarray(pixels).save(root / "img" / split / f"{number}.png")
            Image.fromarray(values).save(root / "ann" / split / f"{number}.png")
    return root


@pytest.fixture
def load(tree: Path) -> Callable[[str], Images]:
    def images(split: str) -> Images:
        return datasets.load("lip", "lip", tree, split)

    return images


@pytest.fixture
def maps(tree: Path) -> LabelMaps:
    return LabelMaps("lip", tuple(f"class {i}" for i in range(CLASSES)), tree)


def knowing(images: Images, rows: Any, width: int = 24, noise: float = 0.02) -> Floats:
    """Features (n, L, D): the share of every class in a token, turned by a random matrix."""
    draw = np.random.default_rng(0)
    turn = draw.normal(size=(CLASSES, width)).astype(np.float32)
    features = []
    for row, window in zip(rows.to_dicts(), windows_in(rows), strict=True):
        classes = read(images.root / row["mask"], CLASSES)
        shares = label_shares(classes, [window], GRID, CLASSES)
        features.append(shares.reshape(GRID * GRID, CLASSES) @ turn)
    stacked = np.stack(features)
    return stacked + draw.normal(0, noise, stacked.shape).astype(np.float32)


@pytest.fixture
def make_store(tmp_path: Path, load: Callable[[str], Images]) -> Callable[..., Store]:
    """Make a finished store of view windows; `views` as in `pa extract`, `spec` replaces fields.

    `patch` (16, 24) knows the labels, `layers` (2, 16, 24) is it and its negative.
    """

    def make(
        split: str = "train",
        views: int = 0,
        *,
        change: Callable[[Floats], Floats] | None = None,
        bad_images: Sequence[int] = (),
        keep: Sequence[str] = ("patch", "layers"),
        **spec: Any,
    ) -> Store:
        images, view = load(split), replace(VIEW, views=views)
        rows = view.rows(images)
        patch = knowing(images, rows)
        if change is not None:
            patch = change(patch)
        features = {"patch": patch, "layers": np.stack([patch, -patch], axis=1)}
        features = {name: features[name] for name in keep}
        fields: dict[str, Any] = {
            "dataset": "lip",
            "split": split,
            "view": view.to_json(),
            "encoder": {"name": "knowing", "weights_sha256": "ab" * 32},
            "transform": {"size": CROP},
            "precision": {"compute": "fp32", "storage": "fp32"},
            "representations": {name: list(v.shape[1:]) for name, v in features.items()},
            "rows": {
                "n": len(rows),
                "n_images": len(images.table),
                "sha256": digest_rows(rows),
            },
            **spec,
        }
        new_spec = Spec(**fields)
        directory = stores.store_directory(
            tmp_path / "features", "lip", split, "windows", "knowing"
        )
        store = create(directory / new_spec.short, new_spec, rows, {"root": str(images.root)}, 8)
        for shard in store.missing():
            with claim(store, shard) as writer:
                assert writer is not None
                part = slice(shard.start, shard.stop)
                of_shard = store.rows.slice(shard.start, shard.n_rows)
                valid = ~np.isin(of_shard["image"].to_numpy(), list(bad_images))
                writer.append({name: values[part] for name, values in features.items()}, valid)
                for number in set(of_shard["image"].to_list()) & set(bad_images):
                    group = of_shard.filter(of_shard["image"] == number)
                    at = (group["row"][0], group["row"][-1])
                    writer.record_bad(BadImage(number, group["path"][0], *at, "torn"))
        finish(store)
        return Store.open(store.path)

    return make
