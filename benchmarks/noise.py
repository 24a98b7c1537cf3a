"""Stores of made-up features, one row per image, for the benchmarks in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.schema import Images
from pa.data.store.reader import Store
from pa.data.store.shards import ShardPlan
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import claim, create, finish
from pa.data.views import VIEWS

Parts = Mapping[str, npt.NDArray[np.float32]]


def make_noise_store(
    path: Path,
    n: int,
    shapes: Mapping[str, Sequence[int]],
    shard_rows: int,
    parts_of: Callable[[ShardPlan], Iterable[Parts]],
) -> Store:
    """A complete fp16 store of n rows. `parts_of` gives the features of a shard piece by piece."""
    table = pl.DataFrame(
        {"image": range(n), "path": [f"{i}.png" for i in range(n)]}
        | {"label": ["x"] * n, "label_id": [0] * n, "file_bytes": [1] * n}
    )
    rows = VIEWS["image"].rows(Images("noise", "all", Path(), table))
    spec = Spec(
        dataset="noise",
        split="all",
        view=VIEWS["image"].to_json(),
        encoder={"name": "noise"},
        transform={},
        precision={"compute": "fp32", "storage": "fp16"},
        representations={name: list(shape) for name, shape in shapes.items()},
        rows={"n": n, "n_images": n, "sha256": digest_rows(rows)},
    )
    store = create(path, spec, rows, {"root": "."}, shard_rows)
    for shard in store.missing():
        with claim(store, shard) as writer:
            assert writer is not None
            for part in parts_of(shard):
                writer.append(part, np.ones(len(next(iter(part.values()))), dtype=np.bool_))
    finish(store)
    return Store.open(path)
