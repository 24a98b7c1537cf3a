"""The feature store: one directory with the features of one (dataset, split, view, encoder, spec).

    spec.json        what made the features; written once, its presence means "a store begins here"
    rows.parquet     the table of regions; a row's number is its id
    shard-00000.h5   features of consecutive rows; the final name means complete
    manifest.json    checksums of all shards and the list of bad images; written last
    locks/           one lock file per shard in work; gone when the store is complete
    runs.jsonl       one line per extraction run: when, where, versions, time split
    images.jsonl     which image files have been compared with a shard; a cache

Field by field: docs/formats.md.

Shapes: N rows of the store, n rows asked for, D width, L patch tokens.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash
from filelock import FileLock, Timeout

from pa.data.files import (
    PARTIAL_SUFFIX,
    link_or_copy,
    remove,
    remove_stale,
    replacing,
    storage_errors,
    write_json,
)
from pa.data.schema import PIXEL_COLUMNS, ROW_SCHEMA, path_outside
from pa.data.store import checksums, reading, shards
from pa.data.store import extract_command as retyping
from pa.data.store import manifest as manifests
from pa.data.store.checksums import has_checksum, with_checksum
from pa.data.store.manifest import Manifest
from pa.data.store.offsets import Layouts
from pa.data.store.shards import BadImage, ShardInfo, ShardPlan, ShardWriter
from pa.data.store.spec import Spec, digest, digest_rows
from pa.data.views.base import View
from pa.errors import FingerprintError, MissingError, NewerFormatError, VerificationError, is_newer

STORE_FORMAT = 2
DEFAULT_SHARD_ROWS = 1024

SPEC, ROWS, MANIFEST, RUNS, IMAGES, LOCKS = (
    "spec.json",
    "rows.parquet",
    "manifest.json",
    "runs.jsonl",
    "images.jsonl",
    "locks",
)
# The way out where the spec of a store is missing next to its other files.
SPEC_AGAIN = (
    "The `pa extract` command that made the store, with all of its options, writes "
    "spec.json again and keeps the shards that are good. To discard the store, delete its folder."
)


class Store:
    """A store on disk. Cheap to open; rows and features are read when asked for.

    Safe to use from many threads and processes, also across a fork: no handle outlives a call.
    """

    def __init__(self, path: Path, spec: Spec, shard_rows: int, source: dict[str, Any]) -> None:
        self.path = path
        self.spec = spec
        self.shard_rows = shard_rows
        self.source = source
        self.layouts = Layouts()

    @classmethod
    def open(cls, path: Path | str, *, incomplete: bool = False) -> Store:
        """Open a store directory.

        Raises `MissingError` where there is none, or (unless `incomplete`) where shards are
        missing; `FingerprintError` where spec.json does not give its own fingerprint.
        """
        path = Path(path)
        fields = _read_spec(path)
        try:
            spec = Spec(**fields["spec"])
            shard_rows = int(fields["layout"]["shard_rows"])
            store = cls(path, spec, shard_rows, dict(fields["source"]))
            claimed = str(fields["fingerprint"])
            if not has_checksum(fields):
                raise ValueError("its checksum is not that of its fields")
            if shard_rows < 1 or not isinstance(spec.rows["n"], int):
                raise ValueError("a number is out of range")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FingerprintError(
                f"{path / SPEC} is not what was written ({type(error).__name__}: {error}). "
                f"Delete the folder {path} and extract again."
            ) from None
        if spec.fingerprint != claimed:
            raise FingerprintError(
                f"{path / SPEC}: its fields give fingerprint {spec.short}, but it claims "
                f"{claimed[:16]}. The file was edited; delete the store and extract again."
            )
        if not incomplete and not store.is_complete:
            done = len(store.plan) - len(store.missing())
            raise MissingError(
                f"the store {path} is not complete: {done} of {len(store.plan)} shards are there. "
                f"Finish it with:\n  {store.command}"
            )
        return store

    @classmethod
    def create(
        cls, path: Path, spec: Spec, rows: pl.DataFrame, source: dict[str, Any], shard_rows: int
    ) -> Store:
        """Begin a store, or open the one that is there; several processes may do so at once."""
        if not (path / SPEC).exists():
            # Through memory: polars tells of a full disk in words of its own.
            table = io.BytesIO()
            rows.write_parquet(table, compression="zstd")
            with replacing(path / ROWS) as partial:
                partial.write_bytes(table.getbuffer())
            cls(path, spec, shard_rows, source)._write_spec(once=True)
        return cls.open(path, incomplete=True)

    def _write_spec(self, *, once: bool) -> None:
        fields = {
            "format": STORE_FORMAT,
            "fingerprint": self.spec.fingerprint,
            "spec": self.spec.to_json(),
            "layout": {"shard_rows": self.shard_rows},
            "source": self.source,
        }
        write_json(self.path / SPEC, with_checksum(fields), once=once)

    # -- what is there -------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint

    @property
    def encoder(self) -> str:
        return str(self.spec.encoder["name"])

    @property
    def view(self) -> str:
        return str(self.spec.view["name"])

    @property
    def title(self) -> str:
        return f"{self.spec.dataset}/{self.spec.split}/{self.view}/{self.encoder}/{self.spec.short}"

    @property
    def label(self) -> str:
        """Dataset, split, view and encoder, as progress bars name the store."""
        return f"{self.spec.dataset}/{self.spec.split}/{self.view} · {self.encoder}"

    @property
    def command(self) -> str:
        """The command that makes, or finishes, this store."""
        return retyping.command(self.spec, self.source)

    def command_for(self, view: View | None = None, features: Sequence[str] = ()) -> str:
        """The command that makes a store of the same images with another view or other features."""
        spec = self.spec if view is None else replace(self.spec, view=view.to_json())
        kept = self.spec.representations if view is None else {}
        return retyping.command(
            replace(spec, representations={name: [] for name in features} or kept),
            self.source,
            with_features=bool(features),
        )

    @property
    def is_complete(self) -> bool:
        return (self.path / MANIFEST).exists()

    @property
    def n_rows(self) -> int:
        return int(self.spec.rows["n"])

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The table of rows; see `pa.data.views.ROW_SCHEMA`.

        Raises `VerificationError` where the file is not the one that was written.
        """
        rows = self._read_rows(None)
        if len(rows) != self.n_rows or not set(ROW_SCHEMA) <= set(rows.columns):
            raise self._damaged(ROWS, f"{len(rows)} rows of the columns {', '.join(rows.columns)}")
        for column in ("path", "mask"):
            if column in rows.columns and (path := path_outside(rows[column])) is not None:
                raise self._damaged(ROWS, f"{column} {path!r} leaves the root of the images")
        return rows

    @cached_property
    def plan(self) -> list[ShardPlan]:
        """The shards there are: by the manifest of a complete store, else by the table of rows."""
        if self.is_complete:
            return shards.plan_of_sizes([entry.rows for entry in self.manifest.shards.values()])
        known = self.__dict__.get("rows")  # read once, where the whole table was asked for before
        image = (self._read_rows(["image"]) if known is None else known)["image"].to_numpy()
        return shards.plan(image, self.shard_rows)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first row of every shard."""
        return np.array([shard.start for shard in self.plan], dtype=np.int64)

    def _read_rows(self, columns: list[str] | None) -> pl.DataFrame:
        try:
            data = (self.path / ROWS).read_bytes()
            if self.is_complete and xxhash.xxh3_128_hexdigest(data) != self.manifest.rows:
                raise self._damaged(ROWS, "its checksum is not the manifest's")
            return pl.read_parquet(io.BytesIO(data), columns=columns)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._damaged(ROWS, str(error).splitlines()[0]) from None

    def _damaged(self, file: str, reason: str) -> VerificationError:
        return VerificationError(
            f"{self.path / file} is not what was written ({reason}). Delete the folder "
            f"{self.path} and make the store again with:\n  {self.command}"
        )

    def shard_path(self, shard: ShardPlan) -> Path:
        return self.path / shard.name

    def missing(self) -> list[ShardPlan]:
        """The shards that are not written yet."""
        # One listing: asking a file server for each of a hundred thousand shards takes minutes.
        there = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        return [shard for shard in self.plan if shard.name not in there]

    @property
    def checksum(self) -> str | None:
        """Checksum of everything a complete store holds; what is made from it records it.

        None for features that are not stored.
        """
        return self.manifest.checksum

    @cached_property
    def manifest(self) -> Manifest:
        """What manifest.json says. Raises `VerificationError` where it is damaged."""
        try:
            text = (self.path / MANIFEST).read_text(encoding="utf-8")
            return manifests.parse(text, self._identity)
        except manifests.ManifestError as error:
            raise self._damaged(MANIFEST, str(error)) from None
        except (OSError, ValueError) as error:
            raise self._damaged(MANIFEST, f"{type(error).__name__}: {error}") from None

    @property
    def _identity(self) -> manifests.Identity:
        return STORE_FORMAT, self.fingerprint, self.n_rows

    @cached_property
    def bad(self) -> list[BadImage]:
        """The images that could not be decoded."""
        return self.manifest.bad

    def bad_of(self, shard: ShardPlan) -> list[BadImage]:
        """The bad images of a finished shard, also of a store that is not complete."""
        return shards.read_info(self.shard_path(shard)).bad

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: False for rows of images that could not be decoded."""
        valid = np.ones(self.n_rows, dtype=np.bool_)
        for bad in self.bad:
            valid[bad.first_row : bad.last_row + 1] = False
        return valid

    # -- reading -------------------------------------------------------------------------------

    def shape(self, representation: str) -> tuple[int, ...]:
        """Shape per row. Raises `UnknownNameError` for a representation that is not stored."""
        return reading.shape(self, representation)

    def read(
        self, representation: str, rows: Sequence[int] | npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[Any]:
        """Read features by row number, in the order asked for; all of them by default.

        Returns an array (n, *shape) of float16 or float32 (bf16 and int8 are widened). Rows of bad
        images are zero; see `valid`.
        """
        return reading.read(self, representation, rows)

    def blocks(
        self, representation: str, block_rows: int = 8192
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Go through all rows in order: (number of the first row, array (n, *shape))."""
        return reading.blocks(self, representation, block_rows)

    @property
    def _storage(self) -> str:
        return self.spec.precision["storage"]

    def image_hashes(self, shard: ShardPlan) -> npt.NDArray[np.uint8]:
        """The xxh3-128 of the image files that a shard was made from, (M, 16) in the order of its
        images; zero for a file that could not be read.

        Raises `VerificationError` where they are not what was written.
        """
        path = self.shard_path(shard)
        if not self.is_complete:
            return shards.read_images(path)
        entry = self.manifest.shards[shard.name]
        n_images = self.rows["image"].slice(shard.start, shard.n_rows).n_unique()
        return shards.read_images_at(
            path, entry.offsets["images"], n_images, entry.checksums["images"]
        )

    def image_checksum(self, shard: ShardPlan) -> str:
        """The checksum of `image_hashes`."""
        if self.is_complete:
            return self.manifest.shards[shard.name].checksums["images"]
        return shards.read_info(self.shard_path(shard)).checksums["images"]

    # -- writing -------------------------------------------------------------------------------

    def shard_key(self, shard: ShardPlan) -> str:
        """Digest of all that determines a shard's bytes: equal keys, interchangeable shards."""
        rows = self.rows.slice(shard.start, shard.n_rows).select(PIXEL_COLUMNS)
        return digest([self.spec.recipe, digest_rows(rows), shard.start])

    @contextlib.contextmanager
    def claim(self, shard: ShardPlan) -> Iterator[ShardWriter | None]:
        """Take a shard to write, or get None where it is done or in another process's hands.

        The shard gets its final name when the block ends without an error.
        """
        with self._locked(shard.name, timeout=0) as got:
            if not got or self.shard_path(shard).exists():
                yield None
                return
            # Not those of other hosts: where locks do not reach them, they may be at work.
            remove_stale(self.path, shard.name)
            rows = self.rows["image"].slice(shard.start, shard.n_rows)
            with shards.writing(
                self.path,
                shard,
                self.spec.representations,
                self._storage,
                self.shard_key(shard),
                rows.unique(maintain_order=True).to_list(),
            ) as writer:
                yield writer
            # Another process may have completed the store by now, and cleared the folder of locks.
            with storage_errors(self._note(shard)), contextlib.suppress(FileNotFoundError):
                checksums.save(self.shard_path(shard), self._note(shard))

    def _note(self, shard: ShardPlan) -> Path:
        """Where a shard's checksum is stored until the manifest has it."""
        return self.path / LOCKS / f"{shard.name}.checksum"

    @contextlib.contextmanager
    def _locked(self, name: str, timeout: float = -1) -> Iterator[bool]:
        """Hold a lock of the store; False where it was not to be had in `timeout` seconds.

        Whoever completes the store removes the folder of locks, perhaps between our making it and
        our opening the lock: then the store is complete, or we try again.
        """
        path = self.path / LOCKS / f"{name}.lock"
        lock = FileLock(path)
        with storage_errors(path):
            while not lock.is_locked:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lock.acquire(timeout=timeout)
                except FileNotFoundError:
                    if self.is_complete:
                        break
                except Timeout:
                    break
        try:
            yield lock.is_locked
        finally:
            lock.release()
            # Not while shards are being repaired: without the locks, writers would not see another.
            if self.is_complete and not self.missing():
                shutil.rmtree(path.parent, ignore_errors=True)

    def adopt(
        self,
        donor: Store,
        changed: Callable[[Sequence[ShardPlan]], Collection[ShardPlan]] = lambda shards: (),
    ) -> int:
        """Take over finished shards of another store that hold the same bytes; how many.

        Not those that `changed` names of the donor's shards: their images are not what they were.
        """
        by_key = donor.shards_by_key()
        pairs = [(shard, by_key.get(self.shard_key(shard))) for shard in self.missing()]
        sound = [(s, found) for s, found in pairs if found is not None and donor.is_sound(found)]
        unwanted = changed([found for _, found in sound])
        wanted = [(shard, found) for shard, found in sound if found not in unwanted]
        for shard, found in wanted:
            link_or_copy(donor.shard_path(found), self.shard_path(shard))
        return len(wanted)

    def discard(self, unwanted: Collection[ShardPlan], root: Path) -> None:
        """Remove shards, to be made again from the images under `root`.

        The manifest first, so that no moment shows a complete store without them.
        """
        remove(self.path / MANIFEST)
        if self.source["root"] != str(root):
            self.source["root"] = str(root)
            self._write_spec(once=False)
        for name in ("manifest", "bad", "valid"):
            self.__dict__.pop(name, None)
        for shard in unwanted:
            remove(self.shard_path(shard))

    def shards_by_key(self) -> dict[str, ShardPlan]:
        """The finished shards by the digest of what determines their bytes; see `shard_key`.

        By the manifest where it says them, else by the shards. What cannot be read is left out.
        """
        if self.is_complete:
            with contextlib.suppress(VerificationError):
                entries = self.manifest.shards
                return {entries[shard.name].key: shard for shard in self.plan}
        found = {}
        for shard in self.plan:
            with contextlib.suppress(OSError, VerificationError):
                found[shards.read_info(self.shard_path(shard)).key] = shard
        return found

    def is_sound(self, shard: ShardPlan) -> bool:
        """Whether a shard's file is the one that was written: by its checksum and its arrays'."""
        path = self.shard_path(shard)
        try:
            if self.is_complete:
                written = self.manifest.shards[shard.name].file
                if written.difference(path, full=True) is not None:
                    return False
        except (OSError, VerificationError):
            return False
        return shards.is_sound(path)

    def finish(self) -> None:
        """Write the manifest, once every shard is there, and clear what only work needed.

        Of a complete store the locks are cleared that a run left which was killed at this point.
        """
        if self.is_complete and not (self.path / LOCKS).exists():
            return
        with self._locked("manifest") as got:
            if got and not self.is_complete:
                for partial in self.path.glob(f"*{PARTIAL_SUFFIX}"):  # all shards are there
                    partial.unlink(missing_ok=True)
                write_json(self.path / MANIFEST, self._make_manifest())

    def _make_manifest(self) -> dict[str, Any]:
        if digest_rows(self.rows) != self.spec.rows["sha256"]:
            raise self._damaged(ROWS, "the table is not the one the spec was made from")
        rows = xxhash.xxh3_128_hexdigest((self.path / ROWS).read_bytes())
        made = [(shard, self._info(shard)) for shard in self.plan]
        entries = [
            (shard.name, info, checksums.load(self.shard_path(shard), self._note(shard)))
            for shard, info in made
        ]
        fields: dict[str, Any] = manifests.compose(self._identity, rows, entries)
        return fields

    def _info(self, shard: ShardPlan) -> ShardInfo:
        """What a finished shard says of itself. Raises `VerificationError` for another's."""
        info = shards.read_info(self.shard_path(shard))
        if info.key != self.shard_key(shard):
            raise shards.damaged(
                self.shard_path(shard), "it was made from other images, boxes, weights or options"
            )
        return info

    def log_run(self, entry: dict[str, Any]) -> None:
        """Append one line to runs.jsonl."""
        self.append_lines(RUNS, [entry])

    def append_lines(self, name: str, entries: Iterable[dict[str, Any]]) -> None:
        """Append lines to a log. Logs are not part of the contract: a disk that is full loses the
        lines, not the run."""
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with contextlib.suppress(OSError):
            handle = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, text.encode())
            finally:
                os.close(handle)

    def runs(self) -> list[dict[str, Any]]:
        """The lines of runs.jsonl, oldest first; lines that a crash tore are left out."""
        from pa.data.store.throughput import read_runs

        return read_runs(self.path)


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads((path / SPEC).read_text(encoding="utf-8"))
    except FileNotFoundError:
        left = any(path.glob("shard-*.h5")) or (path / MANIFEST).exists()
        raise MissingError(
            f"no feature store at {path} (it has no {SPEC})."
            + (f" Other files of a store are there. {SPEC_AGAIN}" if left else "")
        ) from None
    except ValueError as error:
        raise FingerprintError(
            f"{path / SPEC} is not readable JSON ({error}). Delete the store and extract again."
        ) from None
    found = fields.get("format") if isinstance(fields, dict) else None
    if is_newer(found, STORE_FORMAT):
        raise NewerFormatError(path / SPEC, "store", found, STORE_FORMAT)
    if found != STORE_FORMAT:
        raise FingerprintError(
            f"{path / SPEC}: store format {found}, this version reads format {STORE_FORMAT}. "
            f"Delete the folder {path} and extract again{_command(fields)}"
        )
    return fields


def _command(fields: Any) -> str:
    """The command of the spec of an earlier format, where it can be read."""
    try:
        return f" with:\n  {retyping.command(Spec(**fields['spec']), fields['source'])}"
    except (LookupError, TypeError, ValueError, AttributeError):
        return "."
