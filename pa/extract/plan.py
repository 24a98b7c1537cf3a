"""Plan an extraction: rows, shards, files, bytes and time before it begins; writes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.data import files
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store import shards
from pa.data.store.image_files import ImageFiles
from pa.data.store.reader import SPEC, Store
from pa.data.store.throughput import Throughput, recorded_throughput
from pa.data.views.base import View
from pa.data.views.parts import PartsView
from pa.errors import StorageError, VerificationError
from pa.extract.stores import (
    ExtractOptions,
    choose_shard_rows,
    find_conflicting,
    find_rows,
    find_sources,
    make_spec,
    row_bytes,
    rows_in,
)
from pa.progress import Progress, Silent

if TYPE_CHECKING:
    from pa.extract.encoders.base import Encoder

# Measured with HDF5 1.14: headers and attributes of a shard, and what each representation adds.
SHARD_BYTES, ARRAY_BYTES = 5_944, 544
CHECKSUM_BYTES = 8  # of each row of each representation
MANIFEST_BYTES = 450  # entry of a shard
OTHER_FILES = 5  # spec.json, rows.parquet, manifest.json, runs.jsonl, images.jsonl


@dataclass(frozen=True)
class StorePlan:
    """The work that remains for one store."""

    where: str  # dataset/split/view
    encoder: str
    rows: int
    rows_to_do: int  # to encode, in `shards_to_do` shards
    path: Path
    rows_adopted: int  # in shards of other stores: linked, or copied where the disk cannot link
    rows_copied: int  # read from other stores and written in `shards_copied` shards
    shards: int
    shards_to_do: int
    shards_copied: int
    files: int  # still to be written
    bytes: int  # still to be written
    throughput: Throughput | None  # of the longest recorded run of this encoder and view

    @property
    def seconds(self) -> float | None:
        """Seconds of encoding with one process; None without an earlier run to estimate from."""
        return self._seconds_of(self.rows_to_do)

    @property
    def seconds_saved(self) -> float | None:
        """Seconds of encoding that rows of other stores save; None as of `seconds`."""
        return self._seconds_of(self.rows_adopted + self.rows_copied)

    def _seconds_of(self, rows: int) -> float | None:
        if not rows:
            return 0.0
        return None if self.throughput is None else rows / self.throughput.rows_per_second

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        throughput = fields.pop("throughput") or {}
        return {
            **fields,
            "path": str(self.path),
            "rows_per_second": throughput.get("rows_per_second"),
            "rows_per_second_from": throughput.get("source"),
            "seconds": self.seconds,
            "seconds_saved": self.seconds_saved,
        }


@dataclass(frozen=True)
class ExtractPlan:
    """The stores of an extraction, and the `free` bytes on the disk of the `folder` of stores."""

    stores: list[StorePlan]
    folder: Path
    free: int

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.stores)

    @property
    def seconds(self) -> float | None:
        """Seconds of one process for all stores; None if the time of a store is unknown."""
        known = [entry.seconds for entry in self.stores if entry.seconds is not None]
        return math.fsum(known) if len(known) == len(self.stores) else None

    @property
    def fits(self) -> bool:
        return self.bytes <= self.free

    def to_json(self) -> dict[str, Any]:
        return {
            "stores": [entry.to_json() for entry in self.stores],
            "bytes": self.bytes,
            "seconds": self.seconds,
            "place": str(self.folder),
            "free": self.free,
            "fits": self.fits,
        }


def plan_extract(
    encoders: Sequence[Encoder],
    images: Images,
    views: Sequence[View],
    features: Path,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
) -> ExtractPlan:
    """Plan what `pa.extract.run.extract` would do for each view with the same arguments.

    No image is decoded. A note reports each store that `extract` would refuse to replace, and
    images that have changed since they were encoded.
    """
    options, progress = options or ExtractOptions(), progress or Silent()
    plans = []
    for view in views:
        if isinstance(view, PartsView):
            counts = view.select(images.first(options.limit)).counts
            progress.note(f"{images.dataset}/{images.split}/{view.name}: {counts}")
        rows = view.rows(images.first(options.limit))
        for encoder in encoders:
            spec = make_spec(encoder, images, view, rows, options)
            directory = stores.store_directory(
                features, images.dataset, images.split, view.name, encoder.name
            )
            if not (options.replace or options.alongside):
                for conflicting in find_conflicting(directory, spec):
                    progress.note(
                        f"{conflicting.title} has another fingerprint: without --replace or "
                        f"--alongside, pa extract will refuse and list the differences."
                    )
            path = directory / spec.short
            if (path / SPEC).exists():
                store = Store.open(path, incomplete=True)
                if changed := ImageFiles(store, images.root, read_only=True).changed():
                    n_shards = len({image.shard for image in changed})
                    progress.note(
                        f"{len(changed)} of {len(images.table)} images have changed since "
                        f"{store.title} was extracted: without --replace, which encodes "
                        f"{n_shards} shards again, pa extract will refuse."
                    )
            else:
                shard_rows = options.shard_rows or choose_shard_rows(spec)
                # In memory only: it knows which shards are missing, and no folder is created.
                store = Store(path, spec, shard_rows, {"root": str(images.root)})
                store.rows = rows
            plans.append(_plan_store(features, store, view))
    return ExtractPlan(plans, features, files.free_bytes(features))


def check_space(*plans: ExtractPlan) -> None:
    """Raise `StorageError` if the disk is too small for all plans of a workspace together."""
    if plans:
        require_space(sum(plan.bytes for plan in plans), plans[0].folder, plans[0].free)


def require_space(n_bytes: int, folder: Path, free: int) -> None:
    """Raise `StorageError` if features of `n_bytes` exceed the `free` bytes of a folder's disk."""
    if n_bytes > free:  # refused before hours of work, not after them
        raise StorageError(
            f"the features need {n_bytes / 1e9:.2f} GB, and {folder} has {free / 1e9:.2f} GB free. "
            f"Free some space (`pa gc` lists unused files), choose another --workspace, or store "
            f"less with --features."
        )


def _plan_store(features: Path, store: Store, view: View) -> StorePlan:
    spec, begun = store.spec, (store.path / SPEC).exists()
    missing = store.missing()
    sources = find_sources(features, spec) if missing else []  # reading their shards takes time
    keys = set()  # of the finished shards of the source stores
    for source in sources:
        for shard in source.plan:
            # One that is missing or damaged is not linked.
            with contextlib.suppress(OSError, VerificationError):
                keys.add(shards.read_info(source.shard_path(shard)).key)
    # Links need no bytes.
    linked = [shard for shard in missing if store.shard_key(shard) in keys]
    to_write = [shard for shard in missing if shard not in linked]
    origins = find_rows(store, sources, view) if to_write else None
    copied = [shard for shard in to_write if origins is not None and origins.cover(shard)]
    to_do = [shard for shard in to_write if shard not in copied]
    arrays = len(spec.representations)
    # One byte per row states whether its image could be decoded.
    n_bytes = rows_in(to_write) * (row_bytes(spec) + 1 + CHECKSUM_BYTES * arrays)
    n_bytes += len(to_write) * (SHARD_BYTES + ARRAY_BYTES * arrays)
    if not store.is_complete:
        table = io.BytesIO()  # rows.parquet
        if not begun:
            store.rows.write_parquet(table, compression="zstd")
        n_bytes += len(store.plan) * MANIFEST_BYTES + table.tell()
    return StorePlan(
        where=f"{spec.dataset}/{spec.split}/{spec.view['name']}",
        encoder=str(spec.encoder["name"]),
        path=store.path,
        rows=store.n_rows,
        rows_to_do=rows_in(to_do),
        rows_adopted=rows_in(linked),
        rows_copied=rows_in(copied),
        shards=len(store.plan),
        shards_to_do=len(to_do),
        shards_copied=len(copied),
        # A store that exists has its spec.json and rows.parquet.
        files=len(missing) + (0 if store.is_complete else OTHER_FILES - 2 * begun),
        bytes=n_bytes,
        throughput=recorded_throughput(features, spec),
    )
