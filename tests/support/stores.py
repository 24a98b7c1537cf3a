"""Stores with known features."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from pa.data.schema import Images
from pa.data.store import writer as store_writer
from pa.data.store.reader import IMAGES, RUNS, Store
from pa.data.store.shards import BadImage
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create
from pa.data.views import VIEWS

WIDTH, TOKENS = 8, 4


def features_of(rows: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Known features: a function of the row number alone, exact in half precision."""
    flat = np.arange(int(np.prod(shape)))
    values = ((rows[:, None] * 7 + flat) % 31 - 15) / 16
    return values.reshape(len(rows), *shape).astype(np.float32)


def make_rows(n_images: int, per_image: int) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "image": range(n_images),
            "path": [f"c{i % 3}/{i:04d}.png" for i in range(n_images)],
            "label": [f"c{i % 3}" for i in range(n_images)],
            "label_id": [i % 3 for i in range(n_images)],
            "file_bytes": [1000 + i for i in range(n_images)],
        }
    )
    rows = VIEWS["grid"].rows(Images("toy", "val", Path("/photos"), table))
    return rows.filter(pl.col("row") % 49 < per_image).with_columns(
        row=pl.int_range(pl.len(), dtype=pl.Int64)
    )


def make_spec(rows: pl.DataFrame, *, storage: str = "fp16", weights: str = "ab") -> Spec:
    return Spec(
        dataset="toy",
        split="val",
        view=VIEWS["grid"].to_json(),
        encoder={"name": "ramp", "weights_sha256": weights * 32, "architecture": {}, "options": {}},
        transform={"size": 224},
        precision={"compute": "fp32", "storage": storage},
        representations={"pooled": [WIDTH], "patch": [TOKENS, WIDTH]},
        rows={"n": len(rows), "n_images": rows["image"].n_unique(), "sha256": digest_rows(rows)},
    )


def fill(store: Store, bad_images: tuple[int, ...] = (), *, finish: bool = True) -> None:
    """Write every missing shard of a store, and the manifest."""
    for shard in store.missing():
        with claim(store, shard) as writer:
            assert writer is not None
            rows = store.rows.slice(shard.start, shard.n_rows)
            valid = ~np.isin(rows["image"].to_numpy(), bad_images)
            shapes = store.spec.representations
            numbers = rows["row"].to_numpy()
            arrays = {
                name: features_of(numbers, tuple(shape)) * valid.reshape(-1, *[1] * len(shape))
                for name, shape in shapes.items()
            }
            writer.append(arrays, valid)
            for (image,), group in rows.group_by("image", maintain_order=True):
                if image in bad_images:
                    first, last = group["row"][0], group["row"][-1]
                    writer.record_bad(BadImage(image, group["path"][0], first, last, "is torn"))
    if finish:
        store_writer.finish(store)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    def make(
        n_images: int = 10,
        per_image: int = 5,
        shard_rows: int = 12,
        bad_images: tuple[int, ...] = (),
        name: str = "store",
        storage: str = "fp16",
        filled: bool = True,
    ) -> Store:
        rows = make_rows(n_images, per_image)
        spec = make_spec(rows, storage=storage)
        store = create(tmp_path / name, spec, rows, {"root": "/photos"}, shard_rows)
        if filled:
            fill(store, bad_images)
        return store

    return make


def same_files(first: Path, two: Path) -> bool:
    """Every file of two stores is equal byte for byte, the log of runs apart."""
    names = sorted(p.name for p in first.iterdir() if p.name not in (RUNS, IMAGES))
    others = sorted(p.name for p in two.iterdir() if p.name not in (RUNS, IMAGES))
    return names == others and filecmp.cmpfiles(first, two, names, shallow=False)[0] == names
