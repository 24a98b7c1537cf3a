"""Collect the regions of decoded images into batches.

n: rows of a batch, v: rows with pixels among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pa.data.store.shards import BadImage, ShardWriter
from pa.extract.pixels import Cut, CutKey, Loaded


@dataclass(frozen=True)
class Batch:
    """Consecutive rows, and the cuts of the v rows with pixels, by key of the transform."""

    valid: npt.NDArray[np.bool_]  # (n,) whether the row has pixels
    cuts: Mapping[CutKey, Sequence[Cut]]


def batches(loaded: Iterable[Loaded], size: int, writers: Sequence[ShardWriter]) -> Iterator[Batch]:
    """Collect the regions of images into batches of `size` rows; record hashes and bad images.

    Batches begin at the first row of the shard and include bad rows, so the composition of a batch
    does not depend on earlier runs: floating-point sums are equal bit for bit.
    """
    valid: list[bool] = []  # of the rows of the next batch
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
        n_batched = 0  # regions of the image that are in batches
        while n_batched < n:
            step = min(n - n_batched, size - len(valid))  # an image may span batches
            valid += [image.fault is None] * step
            for key, cut in image.cuts.items():
                cuts.setdefault(key, []).append(cut.part(n_batched, n_batched + step))
            n_batched += step
            if len(valid) == size:
                yield Batch(np.array(valid), cuts)
                valid, cuts = [], {}
    if valid:
        yield Batch(np.array(valid), cuts)
