"""From a shard's rows to batches of regions: which images to read, and their regions in order.

Shapes: v valid rows of a batch of n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pa.data.store.reader import Store
from pa.data.store.shards import BadImage, ShardPlan, ShardWriter
from pa.data.views import View
from pa.extract.pixels import Cut, CutKey, ImageJob, Loaded


def image_jobs(store: Store, shard: ShardPlan, view: View) -> list[ImageJob]:
    """The images of a shard, and what is cut out of each."""
    rows = store.rows.slice(shard.start, shard.n_rows)
    jobs = []
    for (image,), group in rows.group_by("image", maintain_order=True):
        boxes = [tuple(box) for box in group.select(view.cut_columns).iter_rows()]
        jobs.append(ImageJob(int(image), group["path"][0], int(group["row"][0]), boxes))
    return jobs


@dataclass(frozen=True)
class Batch:
    """Consecutive rows: which have pixels (n,), and per key the cuts that those v rows are in."""

    valid: npt.NDArray[np.bool_]
    cuts: Mapping[CutKey, Sequence[Cut]]


def batches(loaded: Iterable[Loaded], size: int, writers: Sequence[ShardWriter]) -> Iterator[Batch]:
    """Collect the regions of images into batches of `size` rows; record hashes and bad images.

    Batches begin at the shard's first row and count bad rows too, so the same rows always meet in
    the same batch, whatever was done before: floating-point sums stay equal bit for bit.
    """
    valid: list[bool] = []
    cuts: dict[CutKey, list[Cut]] = {}
    for image in loaded:
        n, first = len(image.job.boxes), image.job.first
        if image.xxh3 is not None:
            for writer in writers:
                writer.record_image(image.job.image, image.xxh3)
        if image.fault is not None:
            bad = BadImage(image.job.image, image.job.path, first, first + n - 1, image.fault)
            for writer in writers:
                writer.record_bad(bad)
        taken = 0
        while taken < n:
            step = min(n - taken, size - len(valid))
            valid += [image.fault is None] * step
            for key, cut in image.cuts.items():
                cuts.setdefault(key, []).append(cut.part(taken, taken + step))
            taken += step
            if len(valid) == size:
                yield Batch(np.array(valid), cuts)
                valid, cuts = [], {}
    if valid:
        yield Batch(np.array(valid), cuts)
