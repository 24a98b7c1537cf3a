"""The feature store: one directory with the features of one (dataset, split, view, encoder, spec).

    spec.json        everything that determines the features; written first, and once
    rows.parquet     the table of regions; the number of a row is its id
    shard-00000.h5   features of consecutive rows; the final name means complete
    manifest.json    checksums of all shards and the list of bad images; written last
    locks/           one lock file per shard in work; removed when the store is complete
    runs.jsonl       one line per extraction run: when, where, versions, times
    images.jsonl     the image files that were compared with a shard; a cache

Field by field: docs/formats.md.

`Store` reads it, `pa.data.store.writer` writes it.

Shapes: N rows of the store, n requested rows, M images of a shard.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from pa.data.files import read_lines
from pa.data.schema import PIXEL_COLUMNS, ROW_SCHEMA, path_outside
from pa.data.store import extract_command, reading, shards
from pa.data.store import manifest as manifests
from pa.data.store.checksums import MISMATCH, has_checksum
from pa.data.store.manifest import Manifest, ShardEntry
from pa.data.store.reading import OffsetCache
from pa.data.store.shards import BadImage, ShardInfo, ShardPlan
from pa.data.store.source import FeatureSource, Ints
from pa.data.store.spec import Spec, digest, digest_rows
from pa.errors import FingerprintError, MissingError, NewerFormatError, VerificationError, is_newer

STORE_FORMAT = 2  # of spec.json and manifest.json; see docs/formats.md

SPEC, ROWS, MANIFEST = "spec.json", "rows.parquet", "manifest.json"
RUNS, IMAGES, LOCKS = "runs.jsonl", "images.jsonl", "locks"
# What to do if the spec of a store is missing next to its other files.
SPEC_AGAIN = (
    "The `pa extract` command of the store, with all of its options, writes spec.json again and "
    "keeps the undamaged shards. To discard the store, delete its folder."
)


class Store(FeatureSource):
    """A store on disk. Opening is cheap; rows and features are read on demand.

    Safe in threads and processes, also across a fork: no file handle outlives a call.
    """

    def __init__(self, path: Path, spec: Spec, shard_rows: int, source: dict[str, Any]) -> None:
        self.path = path
        self.spec = spec
        self.shard_rows = shard_rows
        self.source = source
        self._offsets = OffsetCache()
        self._twin: Store | None = None  # a store whose table of rows is used; see `share_rows`

    @classmethod
    def open(cls, path: Path | str, *, incomplete: bool = False) -> Store:
        """Open a store directory; with `incomplete` also one with missing shards.

        Raises
        ------
        MissingError
            If no store exists, or shards are missing.
        VerificationError
            If spec.json is damaged.
        FingerprintError
            If spec.json has another format.
        """
        path = Path(path)
        fields = _read_spec(path)
        try:
            if not has_checksum(fields):
                raise ValueError(MISMATCH)
            # shard_rows is a maximum, unless one image has more rows.
            shard_rows, spec = fields["layout"]["shard_rows"], Spec(**fields["spec"])
            store = cls(path, spec, shard_rows, dict(fields["source"]))
            if store.fingerprint != fields["fingerprint"]:
                raise ValueError(f"its fields give another fingerprint, {spec.short}")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _damaged_spec(path, error) from None
        if not incomplete and not store.is_complete:
            done = len(store.plan) - len(store.missing())
            raise MissingError(
                f"the store {path} is not complete: {done} of {len(store.plan)} shards exist. "
                f"Finish it with:\n  {store.command}"
            )
        return store

    @property
    def is_complete(self) -> bool:
        return (self.path / MANIFEST).exists()

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The table of rows, in `pa.data.schema.ROW_SCHEMA`. Raises `VerificationError`."""
        if self._twin is not None:
            return self._twin.rows
        rows = self._read_rows(None)
        if len(rows) != self.n_rows or not set(ROW_SCHEMA) <= set(rows.columns):
            raise self.damaged(ROWS, f"{len(rows)} rows of the columns {', '.join(rows.columns)}")
        for column in ("path", "mask"):
            if column in rows.columns and (path := path_outside(rows[column])) is not None:
                raise self.damaged(ROWS, f"{column} {path!r} leaves the root of the images")
        return rows

    def share_rows(self, other: Store) -> None:
        """Use the table of rows of a store with equal rows, so that memory holds one of them."""
        self._twin = other

    @cached_property
    def plan(self) -> list[ShardPlan]:
        """The shards: by the manifest of a complete store, else by the table of rows."""
        if self.is_complete:
            return shards.plan_of_sizes([entry.rows for entry in self.manifest.shards.values()])
        known = self.__dict__.get("rows")  # the cached table, if it was read before
        rows = self._read_rows(["image"]) if known is None else known
        return shards.plan(rows["image"].to_numpy(), self.shard_rows)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first row of every shard."""
        return np.array([shard.start for shard in self.plan], dtype=np.int64)

    def _read_rows(self, columns: list[str] | None) -> pl.DataFrame:
        try:
            # The bytes that are compared are those that are parsed.
            data = (self.path / ROWS).read_bytes()
            if self.is_complete and xxhash.xxh3_128_hexdigest(data) != self.manifest.rows:
                raise self.damaged(ROWS, f"{MISMATCH} the manifest")
            return pl.read_parquet(io.BytesIO(data), columns=columns)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self.damaged(ROWS, str(error).splitlines()[0]) from None

    def damaged(self, file: str, reason: str) -> VerificationError:
        """Return the error for a damaged file of the store, with the remedy."""
        return VerificationError(
            f"{self.path / file} is damaged: {reason}. Delete the folder {self.path} and extract "
            f"again with:\n  {self.command}"
        )

    def shard_path(self, shard: ShardPlan) -> Path:
        return self.path / shard.name

    def missing(self) -> list[ShardPlan]:
        """Return the shards that are not written yet."""
        # One listing: a file server takes minutes to look up 100,000 shards one by one.
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        return [shard for shard in self.plan if shard.name not in names]

    @property
    def checksum(self) -> str | None:
        """Checksum of the content of a complete store, which its indexes and results record."""
        return self.manifest.checksum

    @cached_property
    def manifest(self) -> Manifest:
        """The content of manifest.json. Raises `VerificationError` if it is damaged."""
        try:
            text = (self.path / MANIFEST).read_text(encoding="utf-8")
            return manifests.parse(text, self.identity)
        except (OSError, ValueError) as error:
            raise self.damaged(MANIFEST, str(error)) from None

    @property
    def identity(self) -> manifests.Identity:
        return STORE_FORMAT, self.fingerprint, self.n_rows

    @cached_property
    def bad(self) -> list[BadImage]:
        """The images that could not be decoded."""
        return self.manifest.bad

    def bad_of(self, shard: ShardPlan) -> list[BadImage]:
        """Return the bad images of a finished shard, also of an incomplete store."""
        return shards.read_info(self.shard_path(shard)).bad

    def forget_manifest(self) -> None:
        """Drop what was read of the manifest, after it was removed."""
        for name in ("manifest", "bad", "valid"):
            self.__dict__.pop(name, None)

    # -- features ------------------------------------------------------------------------------

    def read(
        self, representation: str, rows: Sequence[int] | Ints | None = None
    ) -> npt.NDArray[Any]:
        """Return the features of rows in the requested order; see `FeatureSource.read`."""
        wanted = np.arange(self.n_rows) if rows is None else np.asarray(rows, dtype=np.int64)
        out = self.empty(representation, len(wanted))  # (n, *shape) as stored
        self.read_into(representation, wanted, out, np.arange(len(wanted)))
        return self.from_disk(out)

    def blocks(
        self, representation: str, block_rows: int = 8192
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield all rows in order; see `FeatureSource.blocks`."""
        self.shape(representation)
        for shard in self.plan:
            for start in range(0, shard.n_rows, block_rows):
                local = np.arange(start, min(start + block_rows, shard.n_rows))
                out = self.empty(representation, len(local))
                self._read_shard(shard, representation, local, out, local - start)
                yield shard.start + start, self.from_disk(out)

    def empty(self, representation: str, n: int) -> npt.NDArray[Any]:
        """Return memory for n rows in the shape and type that they have on disk."""
        on_disk = shards.disk_shape(self.shape(representation), self._storage)
        return np.empty((n, *on_disk), shards.DISK_DTYPES[self._storage])

    def read_into(
        self, representation: str, rows: Ints, out: npt.NDArray[Any], positions: Ints
    ) -> None:
        """Read `rows` (n,) to `positions` (n,) of `out`, an array made by `empty`.

        The rest of `out` stays unchanged. `from_disk` gives its values.
        """
        self.check_rows(rows)
        # By shard, so that each file is opened once, whatever the order of the rows.
        shard_of = np.searchsorted(self.starts, rows, side="right") - 1  # (n,)
        for index in np.unique(shard_of).tolist():
            chosen = np.flatnonzero(shard_of == index)  # the requested rows in this shard
            local = rows[chosen] - self.plan[index].start
            self._read_shard(self.plan[index], representation, local, out, positions[chosen])

    def _read_shard(
        self,
        shard: ShardPlan,
        representation: str,
        local: Ints,
        out: npt.NDArray[Any],
        positions: Ints,
    ) -> None:
        """Read rows of one shard, by their numbers in it, to `positions` of `out`."""
        path, entry = self.shard_path(shard), self._entry(shard)
        offset = self._offsets.get(
            path, representation, lambda: reading.find_offset(path, shard, representation, entry)
        )
        reading.read_rows(path, shard, representation, offset, local, out, positions)

    def from_disk(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return fp16 and fp32 as they are, bf16 and int8 as float32."""
        return shards.from_disk(values, self._storage)

    def _entry(self, shard: ShardPlan) -> ShardEntry | None:
        """Return the entry of a shard in the manifest; None for an incomplete store."""
        return self.manifest.shards[shard.name] if self.is_complete else None

    @property
    def _storage(self) -> str:
        return self.spec.precision["storage"]

    def image_hashes(self, shard: ShardPlan) -> npt.NDArray[np.uint8]:
        """Return the xxh3-128 of the image files of a shard, (M, 16), in the order of its images.

        Zero for a file that could not be read. Raises `VerificationError` if they changed.
        """
        source = self._attributes(shard)
        n_images = self.rows["image"].slice(shard.start, shard.n_rows).n_unique()
        return shards.read_images(
            self.shard_path(shard), source.offsets["images"], n_images, source.checksums["images"]
        )

    def image_checksum(self, shard: ShardPlan) -> str:
        """Return the checksum of `image_hashes`."""
        return self._attributes(shard).checksums["images"]

    def _attributes(self, shard: ShardPlan) -> ShardEntry | ShardInfo:
        """Return key, checksums and offsets of a shard, from the manifest if it exists."""
        return self._entry(shard) or shards.read_info(self.shard_path(shard))

    def shard_key(self, shard: ShardPlan) -> str:
        """Return a digest of all that determines a shard's bytes: equal keys, equal shards."""
        rows = self.rows.slice(shard.start, shard.n_rows).select(PIXEL_COLUMNS)
        return digest([self.spec.recipe, digest_rows(rows), shard.start])

    def shards_by_key(self) -> dict[str, ShardPlan]:
        """Return the finished shards by `shard_key`; unreadable shards are skipped."""
        by_key = {}
        for shard in self.plan:
            with contextlib.suppress(OSError, VerificationError):
                by_key[self._attributes(shard).key] = shard
        return by_key

    def is_sound(self, shard: ShardPlan) -> bool:
        """Return whether a shard's file and each of its arrays match their checksums."""
        path = self.shard_path(shard)
        try:
            entry = self._entry(shard)
            if entry is not None and entry.file_checksum.difference(path, full=True) is not None:
                return False
        except (OSError, VerificationError):
            return False
        return shards.is_sound(path)

    def runs(self) -> list[dict[str, Any]]:
        """Return the lines of runs.jsonl, oldest first; torn lines are skipped."""
        return list(read_lines(self.path / RUNS))


def _damaged_spec(path: Path, error: Exception) -> VerificationError:
    return VerificationError(
        f"{path / SPEC} is damaged: {error}. Delete the folder {path} and extract again."
    )


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads((path / SPEC).read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = any(path.glob("shard-*.h5")) or (path / MANIFEST).exists()
        raise MissingError(
            f"no feature store at {path} (it has no {SPEC})."
            + (f" Other files of a store exist. {SPEC_AGAIN}" if others else "")
        ) from None
    except ValueError as error:
        raise _damaged_spec(path, error) from None
    version = fields.get("format") if isinstance(fields, dict) else None
    if is_newer(version, STORE_FORMAT):
        raise NewerFormatError(path / SPEC, "store", version, STORE_FORMAT)
    if version != STORE_FORMAT:
        try:
            command = extract_command.command(Spec(**fields["spec"]), fields["source"])
        except (LookupError, TypeError, ValueError, AttributeError):
            command = "the `pa extract` command of the store"
        raise FingerprintError(
            f"{path / SPEC}: store format {version}, this version reads format {STORE_FORMAT}. "
            f"Delete the folder {path} and extract again with:\n  {command}"
        )
    return fields
