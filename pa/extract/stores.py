"""The store that a run fills: its spec and folder, and what other stores already contain.

Nothing is encoded that another store of the same recipe contains. Shards with equal keys are
linked. Other rows are copied: a store of split `train` needs rows that the store of `all` has under
other row and image numbers, which are part of a shard's key. Copied rows are read from the source
store, with all checks, and written as they are stored: nothing is rounded again.

N: rows of the store, M: image files, n: rows of a shard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.images import can_be_opened_now
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store import image_files, writer
from pa.data.store.find import StoreSelector
from pa.data.store.image_files import ImageFiles, describe_changed
from pa.data.store.reader import SPEC, Store
from pa.data.store.shards import DISK_DTYPES, BadImage, ShardPlan, ShardWriter, disk_shape
from pa.data.store.spec import Spec, describe, digest_rows
from pa.data.store.throughput import recorded_throughput
from pa.data.store.writer import DEFAULT_SHARD_ROWS
from pa.data.views import View
from pa.errors import FingerprintError, VerificationError
from pa.extract.share import Share
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.extract.encoders.base import Encoder

Ints = npt.NDArray[np.int64]

SHARD_BYTES = 256_000_000  # upper limit of the default size: seconds to write, cheap to repeat
DEFAULT_STORAGE = "fp16"  # moves average precision by less than 0.001 points
FILE = ("path", "file_bytes")  # columns that identify an image file


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; None or empty selects a value for this machine and the encoder."""

    representations: tuple[str, ...] = ()  # default: those that the view keeps
    storage: str | None = None  # precision on disk
    limit: int | None = None  # number of images, from the first
    batch_size: int | None = None  # regions per forward pass
    workers: int | None = None  # decoding threads
    shard_rows: int | None = None  # default: see `choose_shard_rows`
    replace: bool = False  # conflicting stores, and shards of changed images
    alongside: bool = False  # keep conflicting stores


@dataclass
class Report:
    """The work of a run on the store of one encoder."""

    encoder: Encoder
    store: Store
    files: ImageFiles
    rows_encoded: int = 0
    shards_adopted: int = 0  # linked from other stores
    rows_adopted: int = 0
    copied_from: dict[str, int] = field(default_factory=dict)  # title of the source store → rows
    seconds_saved: float | None = None  # encoding time saved; None without a recorded run
    replaced: list[str] = field(default_factory=list)  # stores deleted at the end of the run
    sources: list[Store] = field(default_factory=list)  # other stores of the same recipe
    compared: set[str] = field(default_factory=set)  # shards of the image files below the root

    @property
    def rows_copied(self) -> int:
        return sum(self.copied_from.values())

    @property
    def bytes_copied(self) -> int:
        return self.rows_copied * row_bytes(self.store.spec)

    def wrote(self, shard: ShardPlan, status: Ints) -> None:
        """Record a shard written by this run, and the states (M, 4) of its M image files."""
        self.compared.add(shard.name)
        self.files.written(shard, status)

    def check_others(self) -> None:
        """Raise `FingerprintError` if other processes wrote shards from other image files."""
        self.files.check([s for s in self.store.plan if s.name not in self.compared])

    def to_json(self) -> dict[str, Any]:
        return {
            "store": self.store.title,
            "path": str(self.store.path),
            "fingerprint": self.store.fingerprint,
            "rows": self.store.n_rows,
            "rows_encoded": self.rows_encoded,
            "complete": self.store.is_complete,
            "shards_adopted": self.shards_adopted,
            "rows_adopted": self.rows_adopted,
            "rows_copied": self.rows_copied,
            "bytes_copied": self.bytes_copied,
            "copied_from": self.copied_from,
            "seconds_saved": self.seconds_saved,
            "replaced": self.replaced,
        }


# -- open ------------------------------------------------------------------------------------------


def make_spec(
    encoder: Encoder, images: Images, view: View, rows: pl.DataFrame, options: ExtractOptions
) -> Spec:
    """Return the spec of the store of an extraction."""
    # Raises now, not after the first batch.
    encoder.require(options.representations)
    available = encoder.representations_at(view.input_size(encoder.transform))
    names = options.representations or view.kept(available)
    return Spec(
        dataset=images.dataset,
        split=images.split,
        view=view.to_json(),
        encoder=encoder.spec.to_json(),
        transform=encoder.transform.to_json(),
        precision={"compute": encoder.compute, "storage": options.storage or DEFAULT_STORAGE},
        representations={name: list(available[name]) for name in names},
        rows={"n": len(rows), "n_images": rows["image"].n_unique(), "sha256": digest_rows(rows)},
        limit=options.limit,
    )


def open_store(
    encoder: Encoder,
    images: Images,
    view: View,
    rows: pl.DataFrame,
    features: Path,
    options: ExtractOptions,
) -> Report:
    """Open or create the store of one encoder, and link equal shards of other stores.

    Stores of any split and limit are searched for equal shards; `reuse_rows` copies rows. Raises
    `FingerprintError` if a conflicting store exists or its images have changed.
    """
    spec = make_spec(encoder, images, view, rows, options)
    directory = stores.store_directory(
        features, images.dataset, images.split, view.name, encoder.name
    )
    conflicting = find_conflicting(directory, spec)
    if conflicting and not (options.replace or options.alongside):
        raise FingerprintError(
            f"{conflicting[-1].title} has another fingerprint. Fields that differ (stored → "
            f"requested):\n{describe(conflicting[-1].spec.differences(spec))}\n"
            "Undo the difference, or choose: --replace creates the new store, reusing equal "
            "shards, and then deletes the old one; --alongside keeps both, selected with --store."
        )
    checkpoint = encoder.checkpoint and str(encoder.checkpoint)
    source = {"root": str(images.root), "checkpoint": checkpoint}
    shard_rows = options.shard_rows or choose_shard_rows(spec)
    store = writer.create(directory / spec.short, spec, rows, source, shard_rows)
    report = Report(encoder, store, ImageFiles(store, images.root))
    if options.replace:
        report.replaced = [str(other.path) for other in conflicting]
    _discard_stale(report, images.root, options.replace)
    if not store.is_complete:
        report.sources = find_sources(features, spec)
        missing = rows_in(store.missing())
        for other in report.sources:  # linking costs nothing, so it precedes copying
            report.shards_adopted += _link_shards(report.files, other)
        report.rows_adopted = missing - rows_in(store.missing())
    # Shards that other processes write from now on are compared before the store is finished.
    report.compared = {s.name for s in set(store.plan) - set(store.missing())}
    return report


def _discard_stale(report: Report, root: Path, replace: bool) -> None:
    """Remove the shards of images that changed or can be read now; refuse it without `replace`."""
    store, changed = report.store, report.files.changed()
    if changed and not replace:
        raise FingerprintError(describe_changed(store, root, changed))
    # A higher limit of pixels or a new decoder makes bad images readable.
    finished = set(store.plan) - set(store.missing())
    bad = store.bad if store.is_complete else [b for s in finished for b in store.bad_of(s)]
    readable = [image for image in bad if can_be_opened_now(root / image.path, image.reason)]
    first_rows = [image.first_row for image in readable]
    numbers = np.searchsorted(store.starts, first_rows, side="right") - 1  # shard of each image
    pairs = [(store.plan[n], image) for n, image in zip(numbers.tolist(), readable, strict=True)]
    pairs = [(shard, image) for shard, image in pairs if shard in finished]
    if pairs and not replace:
        raise FingerprintError(
            f"{store.title} lists {len(pairs)} bad images that can be read now, such as "
            f"{pairs[0][1].path}. --replace encodes their shards again and keeps the others; "
            f"with the earlier max_pixels setting and decoders they remain bad."
        )
    if stale := {image.shard for image in changed} | {shard for shard, _ in pairs}:
        writer.discard(store, stale, root)


def find_conflicting(directory: Path, spec: Spec) -> list[Store]:
    """Return the stores in a store directory that conflict with a spec.

    They have the same view and limit and another fingerprint. A store of another view, such as the
    boxes of another protocol, or of another limit does not conflict.
    """
    paths = sorted(directory.glob(f"*/{SPEC}"))
    return [
        store
        for store in (Store.open(path.parent, incomplete=True) for path in paths)
        if (store.spec.limit, store.spec.view) == (spec.limit, spec.view)
        and store.fingerprint != spec.fingerprint
    ]


def rows_in(shards: Sequence[ShardPlan]) -> int:
    """Return the number of rows of shards."""
    return sum(shard.n_rows for shard in shards)


def choose_shard_rows(spec: Spec) -> int:
    """Return 1024, or the largest power of two below it whose shard has at most 256 MB."""
    fitting = max(1, SHARD_BYTES // row_bytes(spec))  # rows
    return min(DEFAULT_SHARD_ROWS, 1 << (fitting.bit_length() - 1))


def row_bytes(spec: Spec) -> int:
    """Return the bytes of the features of a row on disk."""
    storage = spec.precision["storage"]
    sizes = (math.prod(disk_shape(shape, storage)) for shape in spec.representations.values())
    return int(DISK_DTYPES[storage].itemsize) * sum(sizes)


# -- reuse -----------------------------------------------------------------------------------------


def find_sources(features: Path, spec: Spec) -> list[Store]:
    """Return the other stores with the same recipe as a spec, of any split and limit."""
    query = StoreSelector(
        dataset=spec.dataset, view=spec.view["name"], encoder=spec.encoder["name"]
    )
    return [
        store
        for store in stores.find(features, query)
        if store.spec.recipe == spec.recipe and store.fingerprint != spec.fingerprint
    ]


def _link_shards(files: ImageFiles, source: Store) -> int:
    """Link finished shards of another store that contain the same bytes; return their number.

    Shards whose images have changed since are not linked but encoded.
    """
    try:
        images = ImageFiles(source, files.root)
    except VerificationError:
        return 0
    linked = writer.adopt(
        files.store, source, lambda shards: {i.shard for i in images.changed(shards)}
    )
    if linked:
        files.merge(images)
    return linked


@dataclass(frozen=True, eq=False)
class RowOrigins:
    """Where each row of a store can be copied from; all rows of an image have the same source."""

    sources: list[Store]  # complete stores of the same recipe
    number: Ints  # (N,) position in `sources`, -1 for a row that must be encoded
    row: Ints  # (N,) row in the source store

    def cover(self, shard: ShardPlan) -> bool:
        """Return whether every row of a shard can be copied."""
        return bool((self.number[shard.start : shard.stop] >= 0).all())


def find_rows(
    store: Store, sources: Sequence[Store], view: View, root: Path | None = None
) -> RowOrigins:
    """Find the rows of a store in complete stores of the same recipe.

    Rows are equal if path, file size and the columns that `view` cuts by are equal, and the content
    of the file below `root` (default: the root of the store) is that of the source store. Image
    and row numbers, labels and splits are not compared.
    """
    read_only = root is None  # a run records its comparisons, a plan does not
    root = root or Path(store.source["root"])
    columns = [*FILE, *view.cut_columns]
    image = store.rows["image"].to_numpy()  # (N,)
    complete = [source for source in sources if source.is_complete]
    origins = RowOrigins(complete, np.full(len(image), -1), np.full(len(image), -1))
    wanted = store.rows.select(columns)
    for number, source in enumerate(complete):
        if (origins.number >= 0).all():
            break
        try:
            changed = [i.path for i in ImageFiles(source, root, read_only=read_only).changed()]
            # Only the columns that the pixels depend on: labels and splits may differ.
            candidates = source.rows.select("row", *columns).join(wanted, on="path", how="semi")
            candidates = candidates.unique(subset=columns, keep="first")
            joined = wanted.join(candidates, on=columns, how="left", maintain_order="left")
            rows = joined["row"].fill_null(-1).to_numpy().copy()  # (N,), -1 for a missing row
            rows[wanted["path"].is_in(changed).to_numpy()] = -1
        except VerificationError:
            continue
        # All rows of an image come from one store, which also has its hash and its fault.
        partial = np.unique(image[rows < 0])  # images of which the source store lacks rows
        selected = (origins.number < 0) & ~np.isin(image, partial)  # (N,)
        origins.number[selected], origins.row[selected] = number, rows[selected]
    return origins


def reuse_rows(
    report: Report, view: View, features: Path, share: Share | None, progress: Progress
) -> None:
    """Fill shards of a run's store with rows of its source stores, and record their number.

    Several processes may do so at the same time: each shard is written under its lock, and shards
    locked by other processes are skipped.
    """
    store, missing = report.store, report.store.missing()
    if report.sources and missing:
        # Taken before the source stores compare the files, so that a later change is detected.
        status = report.files.status()  # (M, 4)
        origins = find_rows(store, report.sources, view, report.files.root)
        covered = [shard for shard in missing if origins.cover(shard)]
        if share is not None:
            covered = share.order(covered)
        if covered:
            report.copied_from = _copy_shards(report, origins, covered, status, progress)
    reused = report.rows_adopted + report.rows_copied
    if reused and (throughput := recorded_throughput(features, store.spec)) is not None:
        report.seconds_saved = reused / throughput.rows_per_second


def _copy_shards(
    report: Report,
    origins: RowOrigins,
    covered: Sequence[ShardPlan],
    status: Ints,
    progress: Progress,
) -> dict[str, int]:
    """Copy whole shards and return the number of rows by the title of the source store.

    A shard whose rows cannot be read is encoded later, with a note.
    """
    store, spec = report.store, report.store.spec
    copied = np.zeros(len(origins.sources), np.int64)
    title = f"{spec.dataset}/{spec.split}/{store.view} · {store.encoder} · copying"
    progress.start(title, rows_in(covered), "rows")
    try:
        for shard in covered:
            try:
                with writer.claim(store, shard) as shard_writer:
                    if shard_writer is not None:
                        _copy_shard(store, origins, shard, shard_writer)
            except VerificationError as error:
                progress.note(f"{shard.name} is encoded, not copied: {error}")
                continue
            if shard_writer is not None:
                report.wrote(shard, status[report.files.images_of(shard)])
                numbers = origins.number[shard.start : shard.stop]
                copied += np.bincount(numbers, minlength=len(copied))
            progress.advance(shard.n_rows)
    finally:
        progress.stop()
    pairs = zip(origins.sources, copied.tolist(), strict=True)
    return {source.title: n for source, n in pairs if n}


def _copy_shard(store: Store, origins: RowOrigins, shard: ShardPlan, writer: ShardWriter) -> None:
    table = store.rows.slice(shard.start, shard.n_rows)
    number_of = origins.number[shard.start : shard.stop]  # (n,) source store
    row_of = origins.row[shard.start : shard.stop]  # (n,)
    arrays = {name: store.empty(name, shard.n_rows) for name in store.spec.representations}
    valid = np.ones(shard.n_rows, np.bool_)
    first_rows = np.unique(table["image"].to_numpy(), return_index=True)[1]  # one per image
    for number in np.unique(number_of).tolist():
        source = origins.sources[number]
        targets = np.flatnonzero(number_of == number)  # rows of the shard
        valid[targets] = source.valid[row_of[targets]]
        for name, array in arrays.items():
            source.read_into(name, row_of[targets], array, targets)
        firsts = first_rows[number_of[first_rows] == number]
        hashes = image_files.hashes_of(source, row_of[firsts])
        for image, xxh3 in zip(table["image"][firsts].to_list(), hashes, strict=True):
            writer.record_image(image, xxh3)
    # A bad image stays bad: its rows are zero, with the reason of the source store.
    bad_rows = table.filter(pl.Series(~valid))
    for (image, path), group in bad_rows.group_by("image", "path", maintain_order=True):
        first, last = int(group["row"][0]), int(group["row"][-1])
        source = origins.sources[int(origins.number[first])]
        reason = next(bad.reason for bad in source.bad if bad.path == path)
        writer.record_bad(BadImage(int(image), str(path), first, last, reason))
    writer.append_stored(arrays, valid)
