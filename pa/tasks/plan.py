"""`pa plan extract`: what an extraction will write and how long it takes, before it begins."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import StorageError, VerificationError
from pa.progress import Progress

if TYPE_CHECKING:
    import polars as pl

    from pa.data.schema import Images
    from pa.data.store.spec import Spec
    from pa.data.store.store import Store
    from pa.data.store.throughput import Pace
    from pa.data.views.base import View
    from pa.tasks.extract import ExtractRequest

# Measured with HDF5 1.14: headers and attributes of a shard, and what each representation adds.
SHARD_BYTES, ARRAY_BYTES = 5_944, 544
CHECKSUM_BYTES = 8  # of each row of each representation
MANIFEST_BYTES = 450  # a shard's entry
OTHER_FILES = 5  # spec.json, rows.parquet, manifest.json, runs.jsonl, images.jsonl


@dataclass(frozen=True)
class StorePlan:
    """What is to be done for one store.

    `rows_to_do` are to be encoded and written in `shards_to_do` of `shards` shards; `files` and
    `bytes` are what is still to be written. `rows_adopted` are in shards of other stores that are
    taken over, by link where the disk can; `rows_copied` are read from other stores and written in
    `shards_copied` shards. `pace` is that of the longest recorded run of this encoder and view in
    this workspace, one process, or None.
    """

    where: str
    encoder: str
    path: Path
    rows: int
    rows_to_do: int
    rows_adopted: int
    shards: int
    shards_to_do: int
    files: int
    bytes: int
    pace: Pace | None
    rows_copied: int = 0
    shards_copied: int = 0

    @property
    def seconds(self) -> float | None:
        """Of encoding, for one process; None without an earlier run to estimate from."""
        return self._seconds_of(self.rows_to_do)

    @property
    def seconds_saved(self) -> float | None:
        """The encoding that the rows of other stores save; None as of `seconds`."""
        return self._seconds_of(self.rows_adopted + self.rows_copied)

    def _seconds_of(self, rows: int) -> float | None:
        if not rows:
            return 0.0
        return None if self.pace is None else rows / self.pace.rows_per_second

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("where", "encoder", "rows", "rows_to_do")},
            "path": str(self.path),
            "rows_adopted": self.rows_adopted,
            "rows_copied": self.rows_copied,
            "shards": self.shards,
            "shards_to_do": self.shards_to_do,
            "shards_copied": self.shards_copied,
            "files": self.files,
            "bytes": self.bytes,
            "rows_per_second": self.pace and self.pace.rows_per_second,
            "rows_per_second_from": self.pace and self.pace.source,
            "seconds": self.seconds,
            "seconds_saved": self.seconds_saved,
        }


@dataclass(frozen=True)
class Plan:
    """What an extraction will do, store by store, and the room there is."""

    stores: list[StorePlan]
    place: Path
    free: int

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.stores)

    @property
    def seconds(self) -> float | None:
        """For one process that does everything; None where a store's time is unknown."""
        each = [entry.seconds for entry in self.stores]
        return None if None in each else math.fsum(value for value in each if value is not None)

    @property
    def fits(self) -> bool:
        return self.bytes <= self.free

    def to_json(self) -> dict[str, Any]:
        return {
            "stores": [entry.to_json() for entry in self.stores],
            "bytes": self.bytes,
            "seconds": self.seconds,
            "place": str(self.place),
            "free": self.free,
            "fits": self.fits,
        }


def plan_extract(config: Config, request: ExtractRequest, progress: Progress) -> Plan:
    """Plan what `pa extract` would do with the same request; writes nothing.

    Encoders are loaded, since their files decide what is stored; no image is decoded. Where `pa
    extract` would refuse because of a store that was made by something else, a note says so.
    """
    from pa.data.store import find as stores
    from pa.extract.slots import choose_shard_rows, make_spec
    from pa.tasks.extract import prepare, run_options

    encoders, images, views = prepare(config, request, progress)
    options = run_options(config, request)
    planned = []
    for view in views:
        rows = view.rows(images.first(options.limit))
        for encoder in encoders:
            spec = make_spec(encoder, images, view, rows, options)
            slot = stores.slot(
                config.features, images.dataset, images.split, view.name, encoder.name
            )
            if not (options.replace or options.alongside):
                _tell_rivals(slot, spec, progress)
            shard_rows = options.shard_rows or choose_shard_rows(spec)
            store = _store(slot / spec.short, spec, rows, shard_rows, images)
            _tell_changed(store, images, progress)
            planned.append(_plan_store(config, store, view))
    return Plan(planned, config.features, free_bytes(config.features))


def check_space(*plans: Plan) -> None:
    """Raise `StorageError` where the disk is too small for plans of one workspace together."""
    n_bytes = sum(plan.bytes for plan in plans)
    if plans and n_bytes > plans[0].free:
        raise StorageError(
            f"the features need {n_bytes / 1e9:.2f} GB, and {plans[0].place} has "
            f"{plans[0].free / 1e9:.2f} GB free. Free some space (`pa gc` lists what nothing "
            f"needs), choose another --workspace, or keep less with --features."
        )


def free_bytes(place: Path) -> int:
    """Bytes free on the disk of a folder, which need not be there yet."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(there).free


def _tell_rivals(slot: Path, spec: Spec, progress: Progress) -> None:
    from pa.extract.slots import find_rivals

    for rival in find_rivals(slot, spec):
        progress.note(
            f"{rival.title} was made by something else: pa extract will refuse, and show the "
            f"difference, without --replace or --alongside."
        )


def _tell_changed(store: Store, images: Images, progress: Progress) -> None:
    from pa.data.store.image_files import ImageFiles
    from pa.data.store.store import SPEC

    if not (store.path / SPEC).exists():
        return
    if changed := ImageFiles(store, images.root, keep=False).changed():
        shards = len({image.shard for image in changed})
        progress.note(
            f"{len(changed)} of {len(images.table)} images are not those that {store.title} was "
            f"made from: pa extract will refuse without --replace, which encodes {shards} shards."
        )


def _store(path: Path, spec: Spec, rows: pl.DataFrame, shard_rows: int, images: Images) -> Store:
    """The store that is planned, which need not be there yet."""
    from pa.data.store.store import SPEC, Store

    if (path / SPEC).exists():
        return Store.open(path, incomplete=True)
    store = Store(path, spec, shard_rows, {"root": str(images.root)})
    store.rows = rows
    return store


def _plan_store(config: Config, store: Store, view: View) -> StorePlan:
    from pa.data.store.store import SPEC
    from pa.data.store.throughput import recorded_pace
    from pa.extract.reuse import find_rows
    from pa.extract.slots import find_donors, row_bytes, rows_in

    spec, begun = store.spec, (store.path / SPEC).exists()
    missing = store.missing()
    donors = find_donors(config.features, spec) if missing else []
    donated = _donated(donors)
    adopted = [shard for shard in missing if store.shard_key(shard) in donated]
    to_write = [shard for shard in missing if shard not in adopted]
    sources = find_rows(store, donors, view) if to_write else None
    copied = [shard for shard in to_write if sources is not None and sources.cover(shard)]
    to_do = [shard for shard in to_write if shard not in copied]
    arrays = len(spec.representations)
    n_bytes = rows_in(to_write) * (row_bytes(spec) + 1 + CHECKSUM_BYTES * arrays)
    n_bytes += len(to_write) * (SHARD_BYTES + ARRAY_BYTES * arrays)
    if not store.is_complete:
        n_bytes += len(store.plan) * MANIFEST_BYTES + (0 if begun else _table_bytes(store.rows))
    return StorePlan(
        where=f"{spec.dataset}/{spec.split}/{spec.view['name']}",
        encoder=str(spec.encoder["name"]),
        path=store.path,
        rows=store.n_rows,
        rows_to_do=rows_in(to_do),
        rows_adopted=rows_in(adopted),
        rows_copied=rows_in(copied),
        shards=len(store.plan),
        shards_to_do=len(to_do),
        shards_copied=len(copied),
        files=len(missing) + (0 if store.is_complete else OTHER_FILES - 2 * begun),
        bytes=n_bytes,
        pace=recorded_pace(config.features, spec),
    )


def _donated(donors: Sequence[Store]) -> set[str]:
    """The keys of the shards that stores of the same recipe have."""
    from pa.data.store import shards

    keys = set()
    for donor in donors:
        for shard in donor.plan:
            try:
                keys.add(shards.read_info(donor.shard_path(shard)).key)
            except (OSError, VerificationError):
                continue  # not there, or not to be taken over
    return keys


def _table_bytes(rows: pl.DataFrame) -> int:
    table = io.BytesIO()
    rows.write_parquet(table, compression="zstd")
    return table.tell()
