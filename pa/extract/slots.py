"""Which store a run fills: its spec, its place, what may already lie there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from pa.extract.encoders.base import Encoder

SHARD_BYTES = 256_000_000
DEFAULT_STORAGE = "fp16"  # moves average precision by less than 0.001 points


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; None or empty selects a value for this machine and the encoder."""

    representations: tuple[str, ...] = ()
    storage: str | None = None
    limit: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    shard_rows: int | None = None
    replace: bool = False
    alongside: bool = False


@dataclass
class Report:
    """What a run did for one store. `compared` are the shards whose images are known to be those
    under the root of this run."""

    store: Store
    files: ImageFiles
    rows_encoded: int = 0
    shards_adopted: int = 0
    rows_adopted: int = 0
    copied_from: dict[str, int] = field(default_factory=dict)  # rows by the donor's title
    seconds_saved: float | None = None  # of encoding, where an earlier run's log gives its speed
    replaced: list[str] = field(default_factory=list)
    donors: list[Store] = field(default_factory=list)
    compared: set[str] = field(default_factory=set)

    @property
    def rows_copied(self) -> int:
        return sum(self.copied_from.values())

    @property
    def bytes_copied(self) -> int:
        return self.rows_copied * row_bytes(self.store.spec)

    def wrote(self, shard: ShardPlan, status: npt.NDArray[np.int64]) -> None:
        """Note a shard that this run has written, and the state (M, 4) of its images' files."""
        self.compared.add(shard.name)
        self.files.written(shard, status)

    def check_others(self) -> None:
        """Raise `FingerprintError` where other processes made shards from other image files."""
        self.files.check([s for s in self.store.plan if s.name not in self.compared])


def make_spec(
    encoder: Encoder, images: Images, view: View, rows: pl.DataFrame, options: ExtractOptions
) -> Spec:
    """The spec of the store that this run makes."""
    made_by = encoder.spec.to_json()
    options_of_encoder = dict(made_by["options"])
    compute = options_of_encoder.pop("compute", "fp32")
    return Spec(
        dataset=images.dataset,
        split=images.split,
        view=view.to_json(),
        encoder={**made_by, "options": options_of_encoder},
        transform=encoder.transform.to_json(),
        precision={"compute": compute, "storage": options.storage or DEFAULT_STORAGE},
        representations=choose_representations(encoder, view, options.representations or None),
        rows={"n": len(rows), "n_images": rows["image"].n_unique(), "sha256": digest_rows(rows)},
        limit=options.limit,
    )


def choose_representations(
    encoder: Encoder, view: View, asked: Sequence[str] | None
) -> dict[str, list[int]]:
    """What to store: what was asked for, or what the view keeps by default, with its shape."""
    encoder.require(asked or ())
    there = encoder.representations_at(view.input_size(encoder.transform))
    names = asked or view.kept(there)
    return {name: list(there[name]) for name in names}


def open_store(
    encoder: Encoder,
    images: Images,
    view: View,
    rows: pl.DataFrame,
    features: Path,
    options: ExtractOptions,
) -> Report:
    """Open or begin the store of one encoder, and take over shards that others have made.

    Equal shards of stores of any split or limit are linked; `pa.extract.reuse` copies rows.
    """
    spec = make_spec(encoder, images, view, rows, options)
    place = stores.store_directory(features, images.dataset, images.split, view.name, encoder.name)
    rivals = find_rivals(place, spec)
    if rivals and not (options.replace or options.alongside):
        raise FingerprintError(_conflict(rivals[-1], spec))
    checkpoint = encoder.checkpoint and str(encoder.checkpoint)
    source = {"root": str(images.root), "checkpoint": checkpoint}
    shard_rows = options.shard_rows or choose_shard_rows(spec)
    store = writer.create(place / spec.short, spec, rows, source, shard_rows)
    report = Report(store, ImageFiles(store, images.root))
    if options.replace:
        report.replaced = [str(rival.path) for rival in rivals]
    changed, readable = report.files.changed(), _readable_now(store, images.root)
    if changed and not options.replace:
        raise FingerprintError(describe_changed(store, images.root, changed))
    if readable and not options.replace:
        raise FingerprintError(
            f"{store.title} lists {len(readable)} bad images that can be read now, such as "
            f"{readable[0][1].path}. --replace encodes their shards again and keeps the others; "
            f"with the former setting of max_pixels and the former decoders they stay bad."
        )
    if changed or readable:
        unwanted = {image.shard for image in changed} | {shard for shard, _ in readable}
        writer.discard(store, unwanted, images.root)
    if not store.is_complete:
        report.donors = find_donors(features, spec)
        missing = rows_in(store.missing())
        for donor in report.donors:
            report.shards_adopted += adopt(report.files, donor)
        report.rows_adopted = missing - rows_in(store.missing())
    report.compared = {s.name for s in set(store.plan) - set(store.missing())}
    return report


def _readable_now(store: Store, root: Path) -> list[tuple[ShardPlan, BadImage]]:
    """The bad images that a limit or a missing decoder excluded, and that can be read now."""
    there = set(store.plan) - set(store.missing())
    bad = store.bad if store.is_complete else [b for s in there for b in store.bad_of(s)]
    now = [one for one in bad if can_be_opened_now(root / one.path, one.reason)]
    shards = np.searchsorted(store.starts, [one.first_row for one in now], side="right") - 1
    found = [(store.plan[shard], one) for shard, one in zip(shards.tolist(), now, strict=True)]
    return [(shard, one) for shard, one in found if shard in there]


def adopt(files: ImageFiles, donor: Store) -> int:
    """Take over finished shards of another store that hold the same bytes; how many.

    Not those whose images changed since: they are encoded.
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
    """The other stores whose rows were encoded as a spec says: of any split and any limit."""
    query = StoreSelector(
        dataset=spec.dataset, view=spec.view["name"], encoder=spec.encoder["name"]
    )
    return [
        store
        for store in stores.find(features, query)
        if store.spec.recipe == spec.recipe and store.fingerprint != spec.fingerprint
    ]


def find_rivals(place: Path, spec: Spec) -> list[Store]:
    """The stores in a slot that were made by something else than a spec, or of other rows.

    Another view, such as the boxes of another protocol, or another limit does not conflict.
    """
    there = [Store.open(path.parent, incomplete=True) for path in sorted(place.glob(f"*/{SPEC}"))]
    return [
        store
        for store in there
        if (store.spec.limit, store.spec.view) == (spec.limit, spec.view)
        and store.fingerprint != spec.fingerprint
    ]


def rows_in(shards: Sequence[ShardPlan]) -> int:
    return sum(shard.n_rows for shard in shards)


def choose_shard_rows(spec: Spec) -> int:
    """Rows per shard: 1024, or the power of two below it that keeps a shard under 256 MB."""
    fitting = max(1, SHARD_BYTES // row_bytes(spec))
    return min(DEFAULT_SHARD_ROWS, 1 << (fitting.bit_length() - 1))


def row_bytes(spec: Spec) -> int:
    storage = spec.precision["storage"]
    sizes = (math.prod(disk_shape(shape, storage)) for shape in spec.representations.values())
    return int(DISK_DTYPES[storage].itemsize) * sum(sizes)


def _conflict(rival: Store, spec: Spec) -> str:
    return (
        f"{rival.title} was made by something else. Fields that differ (there → asked for):\n"
        f"{describe(rival.spec.differences(spec))}\n"
        "Undo the difference, or choose: --replace makes the new store, reusing what is equal, "
        "and then deletes the old one; --alongside keeps both, told apart by --store."
    )


def remove_replaced(report: Report) -> None:
    for path in report.replaced:
        shutil.rmtree(path, ignore_errors=True)
