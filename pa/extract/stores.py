"""Open the store that a run fills: its spec, its folder, and shards that already exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.images import can_be_opened_now
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store import writer
from pa.data.store.find import StoreSelector
from pa.data.store.image_files import ImageFiles, describe_changed
from pa.data.store.reader import SPEC, Store
from pa.data.store.shards import DISK_DTYPES, BadImage, ShardPlan, disk_shape
from pa.data.store.spec import Spec, describe, digest_rows
from pa.data.store.writer import DEFAULT_SHARD_ROWS
from pa.data.views import View
from pa.errors import FingerprintError, VerificationError

if TYPE_CHECKING:
    from pa.extract.encoders.base import Encoder

SHARD_BYTES = 256_000_000  # upper limit of the default size: seconds to write, cheap to repeat
DEFAULT_STORAGE = "fp16"  # moves average precision by less than 0.001 points


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
    """The work of a run on one store."""

    store: Store
    files: ImageFiles
    rows_encoded: int = 0
    shards_adopted: int = 0  # linked from other stores
    rows_adopted: int = 0
    copied_from: dict[str, int] = field(default_factory=dict)  # title of the source store → rows
    seconds_saved: float | None = None  # encoding time saved; None without a recorded run
    replaced: list[str] = field(default_factory=list)  # stores deleted at the end of the run
    donors: list[Store] = field(default_factory=list)  # other stores of the same recipe
    compared: set[str] = field(default_factory=set)  # shards of the image files below the root

    @property
    def rows_copied(self) -> int:
        return sum(self.copied_from.values())

    @property
    def bytes_copied(self) -> int:
        return self.rows_copied * row_bytes(self.store.spec)

    def wrote(self, shard: ShardPlan, status: npt.NDArray[np.int64]) -> None:
        """Record a shard written by this run, and the states (M, 4) of its M image files."""
        self.compared.add(shard.name)
        self.files.written(shard, status)

    def check_others(self) -> None:
        """Raise `FingerprintError` if other processes wrote shards from other image files."""
        self.files.check([s for s in self.store.plan if s.name not in self.compared])


def make_spec(
    encoder: Encoder, images: Images, view: View, rows: pl.DataFrame, options: ExtractOptions
) -> Spec:
    """Return the spec of the store of an extraction."""
    encoder.require(options.representations)
    available = encoder.representations_at(view.input_size(encoder.transform))
    names = options.representations or view.kept(available)
    recorded = encoder.spec.to_json()
    options_of_encoder = dict(recorded["options"])
    compute = options_of_encoder.pop("compute", "fp32")  # stored as a precision, not as an option
    return Spec(
        dataset=images.dataset,
        split=images.split,
        view=view.to_json(),
        encoder={**recorded, "options": options_of_encoder},
        transform=encoder.transform.to_json(),
        precision={"compute": compute, "storage": options.storage or DEFAULT_STORAGE},
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

    Stores of any split and limit are searched for equal shards; `pa.extract.reuse` copies rows.
    Raises `FingerprintError` if a conflicting store exists or its images have changed.
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
    report = Report(store, ImageFiles(store, images.root))
    if options.replace:
        report.replaced = [str(other.path) for other in conflicting]
    changed, readable = report.files.changed(), _readable_now(store, images.root)
    if changed and not options.replace:
        raise FingerprintError(describe_changed(store, images.root, changed))
    if readable and not options.replace:
        raise FingerprintError(
            f"{store.title} lists {len(readable)} bad images that can be read now, such as "
            f"{readable[0][1].path}. --replace encodes their shards again and keeps the others; "
            f"with the earlier max_pixels setting and decoders they remain bad."
        )
    if changed or readable:
        stale = {image.shard for image in changed} | {shard for shard, _ in readable}
        writer.discard(store, stale, images.root)
    if not store.is_complete:
        report.donors = find_donors(features, spec)
        missing = rows_in(store.missing())
        for donor in report.donors:  # linking costs nothing, so it precedes copying
            report.shards_adopted += adopt(report.files, donor)
        report.rows_adopted = missing - rows_in(store.missing())
    report.compared = {s.name for s in set(store.plan) - set(store.missing())}
    return report


def _readable_now(store: Store, root: Path) -> list[tuple[ShardPlan, BadImage]]:
    """Return the bad images, with shards, that a limit or missing decoder no longer excludes."""
    finished = set(store.plan) - set(store.missing())
    bad = store.bad if store.is_complete else [b for s in finished for b in store.bad_of(s)]
    readable = [image for image in bad if can_be_opened_now(root / image.path, image.reason)]
    first_rows = [image.first_row for image in readable]
    numbers = np.searchsorted(store.starts, first_rows, side="right") - 1  # shard of each image
    pairs = [(store.plan[n], image) for n, image in zip(numbers.tolist(), readable, strict=True)]
    return [(shard, image) for shard, image in pairs if shard in finished]


def adopt(files: ImageFiles, donor: Store) -> int:
    """Link finished shards of another store that contain the same bytes; return their number.

    Shards whose images have changed since are not linked but encoded.
    """
    try:
        images = ImageFiles(donor, files.root)
    except VerificationError:
        return 0
    adopted = writer.adopt(
        files.store, donor, lambda shards: {i.shard for i in images.changed(shards)}
    )
    if adopted:
        files.merge(images)
    return adopted


def find_donors(features: Path, spec: Spec) -> list[Store]:
    """Return the other stores with the same recipe as a spec, of any split and limit."""
    query = StoreSelector(
        dataset=spec.dataset, view=spec.view["name"], encoder=spec.encoder["name"]
    )
    return [
        store
        for store in stores.find(features, query)
        if store.spec.recipe == spec.recipe and store.fingerprint != spec.fingerprint
    ]


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
