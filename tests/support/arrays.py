"""Stores built from arrays, and clouds of points whose accuracy is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from pa.data.schema import in_schema
from pa.data.store.reader import Store
from pa.data.store.shards import BadImage
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create, finish
from pa.data.views import VIEWS
from pa.data.views.parts import PROTOCOLS

Floats = npt.NDArray[np.float32]
MakeStore = Callable[..., Store]
PutStore = Callable[..., Store]


def table(
    labels: Sequence[str | None], images: Sequence[int], split: str, extra: dict[str, Any]
) -> pl.DataFrame:
    """Rows with one box each; x0 is 0, 112, 0, 112 … so that a condition can halve them."""
    named = sorted({label for label in labels if label is not None}, reverse=True)
    n = len(labels)
    rows = pl.DataFrame(
        {
            "image": images,
            "path": [f"{split}/{image:04d}.png" for image in images],
            "x0": [112.0 * (i % 2) for i in range(n)],
            "y0": [0.0] * n,
            "x1": [112.0 * (i % 2) + 112 for i in range(n)],
            "y1": [112.0] * n,
            "label": labels,
            # The reverse of alphabetical order: the dataset's own order must win.
            "label_id": [None if label is None else named.index(label) for label in labels],
            "file_bytes": [1000 + image for image in images],
            **extra,
        },
        schema_overrides={"label": pl.String, "label_id": pl.Int64},
    )
    return in_schema(rows)


def fill(store: Store, features: dict[str, Floats], bad_images: Sequence[int]) -> None:
    for shard in store.missing():
        with claim(store, shard) as writer:
            assert writer is not None
            rows = store.rows.slice(shard.start, shard.n_rows)
            valid = ~np.isin(rows["image"].to_numpy(), bad_images)
            part = slice(shard.start, shard.stop)
            writer.append({name: values[part] for name, values in features.items()}, valid)
            for (image,), group in rows.group_by("image", maintain_order=True):
                if image in bad_images:
                    first, last = group["row"][0], group["row"][-1]
                    writer.record_bad(BadImage(int(image), group["path"][0], first, last, "torn"))
    finish(store)


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Make a finished store from arrays; `spec` replaces fields of its spec."""

    def make(
        features: dict[str, Floats],
        labels: Sequence[str | None],
        images: Sequence[int] | None = None,
        *,
        split: str = "train",
        bad_images: Sequence[int] = (),
        extra: dict[str, Any] | None = None,
        **spec: Any,
    ) -> Store:
        images = list(range(len(labels))) if images is None else images
        rows = table(labels, images, split, extra or {})
        fields: dict[str, Any] = {
            "dataset": "toy",
            "split": split,
            "view": VIEWS["grid"].to_json(),
            "encoder": {"name": "timm/ramp", "weights_sha256": "ab" * 32},
            "transform": {"size": 224},
            "precision": {"compute": "fp32", "storage": "fp32"},
            "representations": {name: list(v.shape[1:]) for name, v in features.items()},
            "rows": {"n": len(rows), "n_images": len(set(images)), "sha256": digest_rows(rows)},
            **spec,
        }
        new_spec = Spec(**fields)
        shard_rows = max(16, len(rows) // 4)
        store = create(tmp_path / new_spec.short, new_spec, rows, {"root": "/photos"}, shard_rows)
        fill(store, features, bad_images)
        return store

    return make


def blobs(
    n: int, n_classes: int = 3, width: int = 5, spread: float = 0.1, seed: int = 0
) -> tuple[Floats, list[str]]:
    """Normal clouds around the first unit vectors, (n, width), and their class names in turn."""
    target = np.arange(n) % n_classes
    noise = np.random.default_rng(seed).normal(0, spread, (n, width))
    features = (np.eye(width)[target] + noise).astype(np.float32)
    return features, [f"c{index}" for index in target]


@pytest.fixture
def put_store(make_store: MakeStore, in_empty_folder: Path) -> PutStore:
    """Put a store of view `parts` into the workspace, cut by a protocol."""

    def put(split: str, protocol: str, seed: int = 0, n: int = 60, **spec: Any) -> Store:
        features, labels = blobs(n, spread=0.4, seed=seed)
        view = PROTOCOLS[protocol].to_json()
        both = {"cls": features, "pooled": features[:, :4] + 0.5}
        images = (np.arange(n) // 2).tolist()
        new_store = make_store(both, labels, images, split=split, view=view, **spec)
        encoder = new_store.encoder.replace("/", "--")
        target = (
            in_empty_folder / "features" / "toy" / split / "parts" / encoder / new_store.spec.short
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new_store.path, target)
        return Store.open(target)

    return put
