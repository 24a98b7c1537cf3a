"""Reading a store's features: by row number, block after block, or into memory that is there.

What `pa.data.store.Store` does when it is asked for features. A shard is opened when it is needed
for the first time, to make sure that it is the one the manifest means and to see where its rows
lie; from then on they are read from there (`pa.data.layouts`).

Shapes: N rows of the store, n rows asked for.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pa.data import scatter, shards
from pa.data.shards import ShardPlan
from pa.errors import OutOfRangeError, UnknownNameError

if TYPE_CHECKING:
    from pa.data.store import Store

Ints = npt.NDArray[np.int64]


def shape(store: Store, representation: str) -> tuple[int, ...]:
    """Shape per row. Raises `UnknownNameError` for a representation that is not stored."""
    known = store.spec.representations
    if representation not in known:
        raise UnknownNameError(
            "representation",
            representation,
            known,
            f"If encoder {store.encoder} gives it, extract again with --features "
            f"{','.join([*known, representation])} --replace.",
        )
    return tuple(known[representation])


def empty(store: Store, representation: str, n: int) -> npt.NDArray[Any]:
    """Memory for n rows as they lie on disk: see `shards.disk_shape` and `shards.DISK_DTYPES`."""
    on_disk = shards.disk_shape(shape(store, representation), _storage(store))
    return np.empty((n, *on_disk), shards.DISK_DTYPES[_storage(store)])


def read(
    store: Store, representation: str, rows: Sequence[int] | Ints | None = None
) -> npt.NDArray[Any]:
    """Features of the rows, in the order asked for; see `Store.read`."""
    wanted = np.arange(store.n_rows) if rows is None else np.asarray(rows, dtype=np.int64)
    out = empty(store, representation, len(wanted))
    read_into(store, representation, wanted, out, np.arange(len(wanted)))
    return from_disk(store, out)


def read_into(
    store: Store, representation: str, rows: Ints, out: npt.NDArray[Any], places: Ints
) -> None:
    """Read `rows` (n,) to `places` (n,) of `out`, an array made by `empty`.

    Shard by shard; the rest of `out` is left alone. `from_disk` gives its values.
    """
    check_rows(store, rows)
    shard_of = np.searchsorted(store.starts, rows, side="right") - 1
    for index in np.unique(shard_of).tolist():
        chosen = np.flatnonzero(shard_of == index)
        shard = store.plan[index]
        _read_shard(store, shard, representation, rows[chosen] - shard.start, out, places[chosen])


def _read_shard(
    store: Store,
    shard: ShardPlan,
    representation: str,
    local: Ints,
    out: npt.NDArray[Any],
    places: Ints,
) -> None:
    """Read rows of one shard, by their numbers in it, to `places` of `out`."""
    path = store.shard_path(shard)
    layout = store.layouts.of(path, representation, functools.partial(opened, store, shard))
    offsets = layout.offsets(local, out.itemsize * math.prod(out.shape[1:]))
    if offsets is None:
        with opened(store, shard) as file:
            shards.read_rows(file[representation], local, out, places)
        return
    try:
        scatter.read(path, offsets, out.reshape(len(out), -1).view(np.uint8), places)
    except OSError as error:
        raise shards.damaged(path, str(error)) from None


def from_disk(store: Store, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """fp16 and fp32 as they are, bf16 and int8 as float32."""
    return shards.from_disk(values, _storage(store))


def blocks(
    store: Store, representation: str, block_rows: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """All rows in order, block after block; see `Store.blocks`."""
    shape(store, representation)
    for shard in store.plan:
        with opened(store, shard) as file:
            for start in range(0, shard.n_rows, block_rows):
                stop = min(start + block_rows, shard.n_rows)
                data = shards.read_block(file[representation], start, stop)
                yield shard.start + start, from_disk(store, data)


@contextlib.contextmanager
def opened(store: Store, shard: ShardPlan) -> Iterator[Any]:
    """Open a shard, after making sure that it is the one the manifest means."""
    path = store.shard_path(shard)
    # The size is free to ask for; the bytes are compared by `pa verify`.
    seal = store.seal(shard) if path.exists() else None
    if seal is not None and (reason := seal.difference(path, full=False)) is not None:
        raise shards.damaged(path, reason)
    with shards.open_shard(path) as file:
        try:
            found = (int(file.attrs["first_row"]), int(file.attrs["n_rows"]))
            checksums = json.loads(file.attrs["checksums"])
        except (KeyError, ValueError, TypeError) as error:
            raise shards.damaged(path, f"{type(error).__name__}: {error}") from None
        if found != (shard.start, shard.n_rows):
            expected = f"{shard.start}+{shard.n_rows}"
            raise shards.damaged(path, f"it holds rows {found[0]}+{found[1]}, not {expected}")
        if store.is_complete and checksums != store.manifest["checksums"].get(shard.name):
            raise shards.damaged(path, "its checksums are not the manifest's")
        _check_arrays(store, shard, file, path)
        yield file


def _check_arrays(store: Store, shard: ShardPlan, file: Any, path: Path) -> None:
    """Raise `VerificationError` where an array is not of the shape and type of the spec."""
    kind = shards.DISK_DTYPES[_storage(store)]
    for name, shape in store.spec.representations.items():
        expected = (shard.n_rows, *shards.disk_shape(shape, _storage(store)))
        if name not in file or (file[name].shape, file[name].dtype) != (expected, kind):
            found = f"{file[name].shape} {file[name].dtype.str}" if name in file else "nothing"
            raise shards.damaged(path, f"{name}: {found}, expected {expected} {kind.str}")


def _storage(store: Store) -> str:
    return store.spec.precision["storage"]


def check_rows(store: Store, rows: Ints) -> None:
    outside = rows[(rows < 0) | (rows >= store.n_rows)]
    if len(outside):
        raise OutOfRangeError(
            f"row id {outside[0]} is outside this store: it has rows 0 to {store.n_rows - 1} "
            f"({store.title})."
        )
