"""Reading a store's features: by row number, block after block, or into memory that is there.

The manifest states where the arrays of a shard begin and their checksums, so HDF5 opens no file of
a complete store: damaged HDF5 structures can make that library loop forever. Every row that is
read is compared with its checksum, and the row checksums with the manifest (see
`pa.data.store.offsets`).

Shapes: N rows of the store, n rows asked for.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pa.data.store import random_reads as scatter
from pa.data.store import shards
from pa.data.store.offsets import Layout
from pa.data.store.shards import ROW_CHECKSUM, ROW_CHECKSUMS, ShardPlan
from pa.data.store.spec import OF_PROJECTORS, PROJECTORS, REPRESENTATIONS, reason_absent
from pa.errors import OutOfRangeError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from pa.data.store.store import Store

Ints = npt.NDArray[np.int64]


def shape(store: Store, representation: str) -> tuple[int, ...]:
    """Shape per row.

    Raises `UnknownNameError` for a representation that does not exist, `UsageError` for one that is
    not stored.
    """
    known = store.spec.representations
    if representation not in known:
        if representation in REPRESENTATIONS:
            raise UsageError(
                f"{store.title} holds no {representation}; it holds {', '.join(known)}. "
                f"{_how_to_get(store, representation)}".rstrip()
            )
        raise UnknownNameError(
            "representation",
            representation,
            known,
            _near_but_not_stored(store, representation),
        )
    return tuple(known[representation])


def _near_but_not_stored(store: Store, misspelt: str) -> str:
    near = difflib.get_close_matches(misspelt, REPRESENTATIONS, n=1)
    missing = [name for name in near if name not in store.spec.representations]
    return f"Did you mean {missing[0]}? It is not stored." if missing else ""


def _how_to_get(store: Store, representation: str) -> str:
    """What to do for a representation that is not stored; nothing where that is not known."""
    if (reason := reason_absent(store.encoder, representation)) is not None:
        return reason
    if representation in OF_PROJECTORS and store.encoder not in PROJECTORS:
        return ""
    command = store.command_for(features=(*store.spec.representations, representation))
    return f"If encoder {store.encoder} gives it, extract again with:\n  {command} --replace"


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
    look = functools.partial(_look, store, shard, representation)
    layout = store.layouts.of(path, representation, look)
    row_bytes = out.itemsize * math.prod(out.shape[1:])
    try:
        as_bytes = out.reshape(len(out), -1).view(np.uint8)
        scatter.read(path, layout.begin + local * row_bytes, as_bytes, places)
    except OSError as error:
        raise shards.damaged(path, str(error)) from None
    changed = shards.row_checksums(out, places.tolist()) != layout.checksums[local]
    if changed.any():
        row = shard.start + int(local[changed.argmax()])
        raise shards.damaged(
            path,
            f"{representation}: {int(changed.sum())} of {len(local)} rows read have changed since "
            f"they were written, such as row {row}",
        )


def from_disk(store: Store, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """fp16 and fp32 as they are, bf16 and int8 as float32."""
    return shards.from_disk(values, _storage(store))


def blocks(
    store: Store, representation: str, block_rows: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """All rows in order, block after block; see `Store.blocks`."""
    shape(store, representation)
    for shard in store.plan:
        for start in range(0, shard.n_rows, block_rows):
            rows = np.arange(start, min(start + block_rows, shard.n_rows))
            out = empty(store, representation, len(rows))
            _read_shard(store, shard, representation, rows, out, rows - start)
            yield shard.start + start, from_disk(store, out)


def _look(store: Store, shard: ShardPlan, name: str) -> Layout:
    """Find an array of a shard and its row checksums, compared with the manifest's.

    For an incomplete store, the attributes of the shard take the place of the manifest.
    """
    path = store.shard_path(shard)
    if store.is_complete:
        entry = store.manifest.shards[shard.name]
        # Comparing the size reads no data; the bytes are compared when they are read.
        if (reason := entry.file.difference(path, full=False)) is not None:
            raise shards.damaged(path, reason)
        offsets, checksums = entry.offsets, entry.checksums
    else:
        info = shards.read_info(path)
        if (info.first_row, info.n_rows) != (shard.start, shard.n_rows):
            expected = f"{shard.start}+{shard.n_rows}"
            raise shards.damaged(
                path, f"it holds rows {info.first_row}+{info.n_rows}, not {expected}"
            )
        offsets, checksums = info.offsets, info.checksums
    try:
        begin, begin_checksums, expected = (
            offsets[name],
            offsets[name + ROW_CHECKSUMS],
            checksums[name],
        )
    except KeyError as error:
        raise shards.damaged(path, f"it has no array {error}") from None
    rows = np.empty((1, shard.n_rows), ROW_CHECKSUM)
    try:
        scatter.read(path, np.array([begin_checksums]), rows.view(np.uint8), np.zeros(1, np.int64))
    except OSError as error:
        raise shards.damaged(path, str(error)) from None
    if shards.array_checksum(rows[0]) != expected:
        raise shards.damaged(path, f"the row checksums of {name} are not the manifest's")
    return Layout(begin, rows[0])


def _storage(store: Store) -> str:
    return store.spec.precision["storage"]


def check_rows(store: Store, rows: Ints) -> None:
    outside = rows[(rows < 0) | (rows >= store.n_rows)]
    if len(outside):
        raise OutOfRangeError(
            f"row id {outside[0]} is outside this store: it has rows 0 to {store.n_rows - 1} "
            f"({store.title})."
        )
