"""Stores of given vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from pa.data.datasets import Images
from pa.data.images import Transform
from pa.data.regions import VIEWS
from pa.data.shards import BadImage
from pa.data.spec import Spec, digest_rows
from pa.data.store import Store
from tests.conftest import noise_image

PER_IMAGE = 49
MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Write vectors (49·images, D) into a `grid` store over small photographs on disk."""

    def make(
        vectors: npt.NDArray[np.float32],
        bad_images: tuple[int, ...] = (),
        name: str = "store",
        storage: str = "fp16",
    ) -> Store:
        n_images = len(vectors) // PER_IMAGE
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        paths = [f"{number:03d}.png" for number in range(n_images)]
        for number, path in enumerate(paths):
            if not (root / path).exists():
                noise_image(number, (260, 256)).save(root / path, compress_level=0)
        table = pl.DataFrame(
            {
                "image": range(n_images),
                "path": paths,
                "label": [f"class{i % 3}" for i in range(n_images)],
                "label_id": [i % 3 for i in range(n_images)],
                "file_bytes": [1] * n_images,
            }
        )
        view = VIEWS["grid"]
        rows = view.rows(Images("toy", "val", root, table))
        spec = Spec(
            dataset="toy",
            split="val",
            view=view.to_json(),
            encoder={"name": "given", "weights_sha256": name, "architecture": {}, "options": {}},
            transform=Transform().to_json(),
            precision={"compute": "fp32", "storage": storage},
            representations={"pooled": [vectors.shape[1]], "patch": [2, 2]},
            rows={"n": len(rows), "n_images": n_images, "sha256": digest_rows(rows)},
        )
        store = Store.create(tmp_path / name, spec, rows, {"root": str(root)}, 200)
        for shard in store.missing():
            with store.claim(shard) as writer:
                assert writer is not None
                part = rows.slice(shard.start, shard.n_rows)
                valid = ~np.isin(part["image"].to_numpy(), bad_images)
                pooled = vectors[shard.start : shard.stop] * valid[:, None]
                writer.append({"pooled": pooled, "patch": np.ones((len(part), 2, 2))}, valid)
                for image in sorted(set(part["image"].to_list()) & set(bad_images)):
                    first = image * PER_IMAGE
                    bad = BadImage(image, paths[image], first, first + PER_IMAGE - 1, "is torn")
                    writer.record_bad(bad)
        store.finish()
        return Store.open(store.path)

    return make


@pytest.fixture
def vectors() -> npt.NDArray[np.float32]:
    """Ten images of vectors in a few clusters, with many exact duplicates (equal cosines)."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(8, 24))
    found = centres[generator.integers(0, 8, 490)] + 0.3 * generator.normal(size=(490, 24))
    found[100:120] = found[7]
    return found.astype(np.float16).astype(np.float32)


@pytest.fixture
def store(make_store: MakeStore, vectors: npt.NDArray[np.float32]) -> Store:
    return make_store(vectors)


def is_red(path: Path) -> npt.NDArray[np.bool_]:
    """Where a picture is pure red."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))
    found: npt.NDArray[np.bool_] = (pixels == (255, 0, 0)).all(-1)
    return found
