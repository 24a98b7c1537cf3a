"""From a shard's rows to batches of pixels: which images to read, and their regions in order.

Shapes: v valid rows of a batch of n, S side of the encoder's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pa.data.regions import View
from pa.data.shards import BadImage, ShardPlan, ShardWriter
from pa.data.store import Store
from pa.extract.pixels import CutKey, ImageJob, Loaded


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
    """Consecutive rows: which have pixels (n,), and per cut the pixels of those (v, S, S, 3)."""

    valid: npt.NDArray[np.bool_]
    pixels: Mapping[CutKey, npt.NDArray[np.uint8]]


def batches(loaded: Iterator[Loaded], size: int, writers: Sequence[ShardWriter]) -> Iterator[Batch]:
    """Collect the regions of images into batches of `size` rows, and record the bad images.

    Batches begin at the shard's first row and count bad rows too, so the same rows always meet in
    the same batch, whatever was done before: floating-point sums stay equal bit for bit.
    """
    valid: list[bool] = []
    parts: dict[CutKey, list[npt.NDArray[np.uint8]]] = {}
    for image in loaded:
        n, first = len(image.job.boxes), image.job.first
        if image.fault is not None:
            bad = BadImage(image.job.image, image.job.path, first, first + n - 1, image.fault)
            for writer in writers:
                writer.record_bad(bad)
        taken = 0
        while taken < n:
            step = min(n - taken, size - len(valid))
            valid += [image.fault is None] * step
            for key, pixels in image.pixels.items():
                parts.setdefault(key, []).append(pixels[taken : taken + step])
            taken += step
            if len(valid) == size:
                yield _batch(valid, parts)
                valid, parts = [], {}
    if valid:
        yield _batch(valid, parts)


def _batch(valid: list[bool], parts: dict[CutKey, list[npt.NDArray[np.uint8]]]) -> Batch:
    return Batch(np.array(valid), {key: np.concatenate(arrays) for key, arrays in parts.items()})
