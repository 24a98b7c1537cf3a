"""Copy rows that other stores contain, selected by the data that their features depend on.

A store of split `train` needs rows that the store of `all` contains under other row and image
numbers. Its shards cannot be linked, since these numbers are part of a shard's key. The rows are
read from the source store, with all checks, and written as they are stored: nothing is encoded or
rounded again.

N: rows of the store, M: image files, n: rows of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.store import image_files, writer
from pa.data.store.image_files import ImageFiles
from pa.data.store.reader import Store
from pa.data.store.shards import BadImage, ShardPlan, ShardWriter
from pa.data.store.throughput import recorded_throughput
from pa.data.views.base import View
from pa.errors import VerificationError
from pa.extract.share import Share
from pa.extract.stores import Report, rows_in
from pa.progress import Progress

Ints = npt.NDArray[np.int64]

FILE = ("path", "file_bytes")  # columns that identify an image file


@dataclass(frozen=True, eq=False)
class Sources:
    """The sources of a store's rows; all rows of an image have the same source store."""

    donors: list[Store]  # complete stores of the same recipe
    donor: Ints  # (N,) position in `stores`, -1 for a row that must be encoded
    row: Ints  # (N,) row in the source store

    def cover(self, shard: ShardPlan) -> bool:
        """Return whether every row of a shard can be copied."""
        return bool((self.donor[shard.start : shard.stop] >= 0).all())


def find_rows(
    store: Store, donors: Sequence[Store], view: View, root: Path | None = None
) -> Sources:
    """Find the rows of a store in complete stores of the same recipe.

    Rows are equal if path, file size and the columns that `view` cuts by are equal, and the content
    of the file below `root` (default: the root of the store) is that of the source store. Image
    and row numbers, labels and splits are not compared.
    """
    read_only = root is None  # a run records its comparisons, a plan does not
    root = root or Path(store.source["root"])
    columns = [*FILE, *view.cut_columns]
    image = store.rows["image"].to_numpy()
    sources = Sources(
        [donor for donor in donors if donor.is_complete],
        np.full(len(image), -1),
        np.full(len(image), -1),
    )
    wanted = store.rows.select(columns)
    for number, donor in enumerate(sources.donors):
        if (sources.donor >= 0).all():
            break
        try:
            files = ImageFiles(donor, root, read_only=read_only)
            changed = [image.path for image in files.changed()]
            candidates = donor.rows.select("row", *columns).join(wanted, on="path", how="semi")
            candidates = candidates.unique(subset=columns, keep="first")
            joined = wanted.join(candidates, on=columns, how="left", maintain_order="left")
            rows = joined["row"].fill_null(-1).to_numpy().copy()  # (N,), -1 for a missing row
            rows[wanted["path"].is_in(changed).to_numpy()] = -1
        except VerificationError:
            continue
        partial = np.unique(image[rows < 0])  # images of which the source store lacks rows
        selected = (sources.donor < 0) & ~np.isin(image, partial)  # (N,)
        sources.donor[selected], sources.row[selected] = number, rows[selected]
    return sources


def reuse_rows(
    report: Report, view: View, features: Path, share: Share | None, progress: Progress
) -> None:
    """Fill shards of a run's store with rows of its source stores, and record their number.

    Several processes may do so at the same time: each shard is written under its lock.
    """
    store, missing = report.store, report.store.missing()
    reused = report.rows_adopted
    if report.donors and missing:
        # Taken before the source stores compare the files, so that a later change is detected.
        status = report.files.status()
        sources = find_rows(store, report.donors, view, report.files.root)
        covered = [shard for shard in missing if sources.cover(shard)]
        if share is not None:
            covered = [covered[number] for number in share.order(range(len(covered)))]
        if covered:
            copied = _copy_shards(report, sources, covered, status, progress)
            report.copied_from = {
                donor.title: n
                for donor, n in zip(sources.donors, copied.tolist(), strict=True)
                if n
            }
    reused += report.rows_copied
    if reused and (throughput := recorded_throughput(features, store.spec)) is not None:
        report.seconds_saved = reused / throughput.rows_per_second


def _copy_shards(
    report: Report,
    sources: Sources,
    covered: Sequence[ShardPlan],
    status: Ints,
    progress: Progress,
) -> Ints:
    """Write shards whose rows are all available; return the number of rows from each source store.

    `status` (M, 4) are the states of the store's image files. Shards locked by other processes are
    skipped. A shard whose rows cannot be read is encoded later, with a note.
    """
    copied = np.zeros(len(sources.donors), np.int64)
    store = report.store
    spec = store.spec
    title = f"{spec.dataset}/{spec.split}/{store.view} · {store.encoder} · copying"
    progress.start(title, rows_in(covered), "rows")
    try:
        for shard in covered:
            try:
                with writer.claim(store, shard) as shard_writer:
                    if shard_writer is not None:
                        _copy_shard(store, sources, shard, shard_writer)
            except VerificationError as error:
                progress.note(f"{shard.name} is encoded, not copied: {error}")
                continue
            if shard_writer is not None:
                report.wrote(shard, status[report.files.images_of(shard)])
                of_shard = sources.donor[shard.start : shard.stop]
                copied += np.bincount(of_shard, minlength=len(copied))
            progress.advance(shard.n_rows)
    finally:
        progress.stop()
    return copied


def _copy_shard(store: Store, sources: Sources, shard: ShardPlan, writer: ShardWriter) -> None:
    table = store.rows.slice(shard.start, shard.n_rows)
    donor_of = sources.donor[shard.start : shard.stop]  # (n,)
    row_of = sources.row[shard.start : shard.stop]  # (n,)
    arrays = {name: store.empty(name, shard.n_rows) for name in store.spec.representations}
    valid = np.ones(shard.n_rows, np.bool_)
    first_rows = np.unique(table["image"].to_numpy(), return_index=True)[1]  # one per image
    for number in np.unique(donor_of).tolist():
        donor = sources.donors[number]
        targets = np.flatnonzero(donor_of == number)  # rows of the shard
        valid[targets] = donor.valid[row_of[targets]]
        for name, array in arrays.items():
            donor.read_into(name, row_of[targets], array, targets)
        firsts = first_rows[donor_of[first_rows] == number]
        hashes = image_files.hashes_of(donor, row_of[firsts])
        for image, xxh3 in zip(table["image"][firsts].to_list(), hashes, strict=True):
            writer.record_image(image, xxh3)
    bad_rows = table.filter(pl.Series(~valid))
    for (image, path), group in bad_rows.group_by("image", "path", maintain_order=True):
        first, last = int(group["row"][0]), int(group["row"][-1])
        donor = sources.donors[int(sources.donor[first])]
        reason = next(bad.reason for bad in donor.bad if bad.path == path)
        writer.record_bad(BadImage(int(image), str(path), first, last, reason))
    writer.append_stored(arrays, valid)
