"""A workspace with stores of part patches whose features are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from pa.data.schema import in_schema
from pa.data.store.find import store_directory
from pa.data.store.reader import Store
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import create
from pa.data.views.parts import PROTOCOLS
from tests.support.arrays import fill

PARTS = ("right eye", "right leg", "left wing", "tail")
N_BIRDS, N_SPECIES = 40, 5
MakeParts = Callable[..., Store]


def birds() -> pl.DataFrame:
    """Forty birds of five species, two to four of their parts visible."""
    rng = np.random.default_rng(0)
    lines = []
    for bird in range(N_BIRDS):
        species = f"{bird % N_SPECIES:03d}"
        for part in sorted(rng.choice(len(PARTS), rng.integers(2, 5), replace=False)):
            lines.append((bird, f"{bird:04d}.jpg", PARTS[part], int(part), str(bird), species))
    names = ("image", "path", "label", "label_id", "object", "class")
    rows = pl.DataFrame(lines, schema=list(names), orient="row")
    return in_schema(
        rows.with_columns(
            pl.col("label").alias("part"),
            *(pl.lit(float(value)).alias(name) for name, value in zip("xy", (8, 8), strict=True)),
            *(pl.lit(value).alias(name) for name, value in _BOX.items()),
            pl.lit(9.0).alias("d"),
            pl.lit(100).alias("file_bytes"),
        )
    )


_BOX = {"x0": 0.0, "y0": 0.0, "x1": 16.0, "y1": 16.0}


def features_of(rows: pl.DataFrame, width: int, noise: float, by: str = "label") -> Any:
    """Normal clouds around one direction per value of a column, (N, width) float32."""
    rng = np.random.default_rng(width)
    number = rows[by].rank("dense").to_numpy().astype(int) - 1
    centres = rng.standard_normal((number.max() + 1, width))
    values = centres[number] + noise * rng.standard_normal((len(rows), width))
    return values.astype(np.float32)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pa.toml").write_text('device = "cpu"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_parts(workspace: Path) -> MakeParts:
    """Make a finished store of view parts in the workspace."""

    def make(
        encoder: str = "dino",
        protocol: str = "paper",
        *,
        features: dict[str, npt.NDArray[np.float32]] | None = None,
        rows: pl.DataFrame | None = None,
        bad_images: tuple[int, ...] = (),
        layers: tuple[int, ...] = (),
        depth: int | None = None,
        **spec: Any,
    ) -> Store:
        rows = birds() if rows is None else rows
        seed = len(encoder)
        values = features or {
            "cls": features_of(rows, 12 + seed, 1.0),
            "pooled": features_of(rows, 16 + seed, 0.8),
            "projected": features_of(rows, 10 + seed, 0.8, by="object"),
        }
        options = {"layers": list(layers)} if layers else {}
        architecture = {} if depth is None else {"architecture": {"depth": depth}}
        fields: dict[str, Any] = {
            "dataset": "cub",
            "split": "all",
            "view": PROTOCOLS[protocol].to_json(),
            "encoder": {
                "name": encoder,
                "weights_sha256": "ab" * 32,
                "options": options,
                **architecture,
            },
            "transform": {"size": 224},
            "precision": {"compute": "fp32", "storage": "fp32"},
            "representations": {name: list(v.shape[1:]) for name, v in values.items()},
            "rows": {
                "n": len(rows),
                "n_images": rows["image"].n_unique(),
                "sha256": digest_rows(rows),
            },
            **spec,
        }
        new_spec = Spec(**fields)
        folder = store_directory(
            workspace / "features", new_spec.dataset, new_spec.split, "parts", encoder
        )
        store = create(folder / new_spec.short, new_spec, rows, {"root": "/birds"}, 64)
        fill(store, values, bad_images)
        return Store.open(store.path)

    return make
