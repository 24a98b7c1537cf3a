"""Stores of given vectors."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from pa import cli
from pa.data.images import Transform
from pa.data.schema import Images
from pa.data.store.find import store_directory
from pa.data.store.reader import Store
from pa.data.store.shards import BadImage
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create, finish
from pa.data.views import VIEWS
from pa.data.views.base import View
from tests.support.images import noise_image

PER_IMAGE = 49
MakeStore = Callable[..., Store]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pa(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], in_empty_folder: Path
) -> Run:
    """Run `pa …` in this process, in an empty folder: exit code, stdout, stderr (C++'s too)."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pa", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capfd.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


def write_store(
    features: Path,
    images: Images,
    view: View,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    encoder: str = "given",
) -> Store:
    """Write vectors (N, D) by representation as a store of a workspace's `features` folder."""
    rows = view.rows(images)
    spec = Spec(
        dataset=images.dataset,
        split=images.split,
        view=view.to_json(),
        encoder={"name": encoder, "weights_sha256": "0", "architecture": {}, "options": {}},
        transform=Transform().to_json(),
        precision={"compute": "fp32", "storage": "fp32"},
        representations={name: [values.shape[1]] for name, values in vectors.items()},
        rows={"n": len(rows), "n_images": len(images.table), "sha256": digest_rows(rows)},
    )
    target = (
        store_directory(features, images.dataset, images.split, view.name, encoder) / spec.short
    )
    store = create(target, spec, rows, {"root": str(images.root)}, 100)
    for shard in store.missing():
        with claim(store, shard) as writer:
            assert writer is not None
            part: dict[str, Any] = {
                name: values[shard.start : shard.stop] for name, values in vectors.items()
            }
            writer.append(part, np.ones(shard.n_rows, np.bool_))
    finish(store)
    return Store.open(target)


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
        store = create(tmp_path / name, spec, rows, {"root": str(root)}, 200)
        for shard in store.missing():
            with claim(store, shard) as writer:
                assert writer is not None
                part = rows.slice(shard.start, shard.n_rows)
                valid = ~np.isin(part["image"].to_numpy(), bad_images)
                pooled = vectors[shard.start : shard.stop] * valid[:, None]
                writer.append({"pooled": pooled, "patch": np.ones((len(part), 2, 2))}, valid)
                for image in sorted(set(part["image"].to_list()) & set(bad_images)):
                    first = image * PER_IMAGE
                    bad = BadImage(image, paths[image], first, first + PER_IMAGE - 1, "is torn")
                    writer.record_bad(bad)
        finish(store)
        return Store.open(store.path)

    return make


@pytest.fixture
def vectors() -> npt.NDArray[np.float32]:
    """Ten images of vectors in a few clusters, with many exact duplicates (equal cosines)."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(8, 24))
    actual = centres[generator.integers(0, 8, 490)] + 0.3 * generator.normal(size=(490, 24))
    actual[100:120] = actual[7]
    return actual.astype(np.float16).astype(np.float32)


@pytest.fixture
def store(make_store: MakeStore, vectors: npt.NDArray[np.float32]) -> Store:
    return make_store(vectors)


def is_red(path: Path) -> npt.NDArray[np.bool_]:
    """Where a picture is pure red."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))
    actual: npt.NDArray[np.bool_] = (pixels == (255, 0, 0)).all(-1)
    return actual
