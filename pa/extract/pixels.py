"""Decode images in advance, in threads, and collect the pixels of their regions into batches.

Pillow releases the interpreter lock while it decodes and resizes, so threads are enough and nothing
is pickled or forked.

B: regions of an image, S: side of the encoder's input, H, W: pixels of a canvas, n: rows of a
batch, v: valid rows among them, which have pixels.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data import images as im
from pa.data.images import Transform
from pa.data.schema import Box
from pa.data.store import image_files
from pa.data.store.image_files import NotAFileError, Status
from pa.data.store.shards import BadImage, ShardWriter
from pa.data.views import View
from pa.errors import ImageError

CutKey = tuple[Any, ...]  # the fields of a transform that change the pixels; see View.cut_key
STAGES = ("read", "decode", "cut", "encode", "write")


@dataclass
class Stages:
    """Seconds per stage, summed over threads, and seconds that encoding waited for images."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    waited: float = 0.0  # seconds
    wall: float = 0.0  # seconds
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:  # decoding threads add to the same stages
                self.seconds[stage] += elapsed

    @property
    def limit(self) -> str:
        """Return the stage that limits the speed.

        Reading, decoding and cutting run in parallel with encoding and writing. If encoding waited
        for images for more than a fifth of the time, the slowest of the first three stages is the
        limit, else the slower one of the last two.
        """
        stages = STAGES[:3] if self.waited > 0.2 * self.wall else STAGES[3:]
        return max(stages, key=self.seconds.__getitem__)

    def to_json(self) -> dict[str, float | str]:
        split = {name: round(value, 3) for name, value in self.seconds.items()}
        return {**split, "waited": round(self.waited, 3), "wall": round(self.wall, 3)}


@dataclass(frozen=True)
class ImageJob:
    """An image to decode, and the regions to cut: rows `first` to `first + len(boxes)`.

    A box contains the `cut_columns` of the view: x0, y0, x1, y1 and further columns of the view.
    """

    image: int  # number of the image in the table
    path: str  # below the root
    first: int  # row of the first region
    boxes: Sequence[Box]


def image_jobs(rows: pl.DataFrame, view: View) -> list[ImageJob]:
    """Return the images of consecutive rows and the boxes to cut from each."""
    jobs = []
    for (image,), group in rows.group_by("image", maintain_order=True):
        boxes = [tuple(box) for box in group.select(view.cut_columns).iter_rows()]
        jobs.append(ImageJob(int(image), group["path"][0], int(group["row"][0]), boxes))
    return jobs


@dataclass(frozen=True)
class Cut:
    """B regions of one image, or the canvas and corners of windows that the device will cut."""

    pixels: npt.NDArray[np.uint8]  # (B, S, S, 3), or the canvas (1, H, W, 3)
    corners: npt.NDArray[np.int64] | None = None  # (B, 2) x and y of upper left corners

    def part(self, start: int, stop: int) -> Cut:
        """Return regions `start` to `stop`."""
        if self.corners is None:
            return Cut(self.pixels[start:stop])
        return Cut(self.pixels, self.corners[start:stop])


@dataclass(frozen=True)
class Loaded:
    """The regions of an image, one `Cut` per key, or the reason why it cannot be decoded."""

    job: ImageJob
    cuts: Mapping[CutKey, Cut]
    fault: str | None = None
    xxh3: bytes | None = None  # hash of the file, None if it cannot be read
    status: Status | None = None  # state of the file, None if it cannot be read


class Loader:
    """Read, decode and cut images once for all encoders.

    `ahead_images` is the maximum number of decoded images that wait. With `canvases` the windows of
    view `grid` are cut on the device: a `Cut` is a canvas and corners, a fiftieth of the bytes.
    """

    def __init__(
        self,
        root: Path,
        view: View,
        transforms: Sequence[Transform],
        stages: Stages,
        workers: int | None = None,
        ahead_images: int = 0,
        canvases: bool = False,
    ) -> None:
        self.root = root
        self.view = view
        self.transforms = {view.cut_key(transform): transform for transform in transforms}
        self.stages = stages
        workers = workers or min(8, os.cpu_count() or 1)  # more do not decode faster
        self.ahead_images = max(ahead_images, 2 * workers)  # no thread waits for another
        self.canvases = canvases
        self._waiting: deque[Future[Loaded]] = deque()  # in the order of the jobs
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pa-decode")

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def load(self, job: ImageJob) -> Loaded:
        """Load an image. An error of the file is part of the result, not raised."""
        try:
            with self.stages.timed("read"):
                content = image_files.read(self.root / job.path)
        except NotAFileError as error:
            return Loaded(job, {}, str(error))
        # One huge file must not end a run of hours: it is a bad image, as a damaged one is.
        except MemoryError:
            return Loaded(job, {}, "not enough memory to read it")
        except OSError as error:
            return Loaded(job, {}, f"cannot read the file: {error.strerror or error}")
        cuts: dict[CutKey, Cut] = {}
        fault = None
        try:
            with self.stages.timed("decode"):
                image = im.decode(content.data, job.path)
            with self.stages.timed("cut"):
                for key, transform in self.transforms.items():
                    canvas = self.view.canvas(image, transform)
                    if self.canvases:
                        corners = np.array(job.boxes, np.int64)[:, :2]  # (B, 2) x0, y0
                        cuts[key] = Cut(im.stack([canvas]), corners)
                    else:
                        cuts[key] = Cut(self.view.cut(canvas, job.boxes, transform))
        except ImageError as error:
            fault = error.reason
        except MemoryError:
            fault = "not enough memory to decode it"
        return Loaded(job, {} if fault else cuts, fault, content.xxh3, content.status)

    @property
    def busy(self) -> bool:
        """Return whether requested images have not been consumed yet."""
        return bool(self._waiting)

    def ahead(self, jobs: Iterable[ImageJob | None]) -> Iterator[Loaded]:
        """Yield the loaded jobs in order, while threads load later ones.

        A job of None means that the next job depends on the consumption of an image; it is allowed
        only while the loader is `busy`.
        """
        # In the order of the jobs: results are consumed in order, whichever thread is first.
        waiting = self._waiting
        try:
            for job in jobs:
                if job is not None:
                    waiting.append(self._pool.submit(self.load, job))
                if job is None or len(waiting) > self.ahead_images:
                    yield self._next()
            while waiting:
                yield self._next()
        finally:
            # The consumer stopped early: what no thread has begun yet is not decoded.
            for future in waiting:
                future.cancel()
            waiting.clear()

    def _next(self) -> Loaded:
        future = self._waiting.popleft()
        began = time.perf_counter()
        loaded = future.result()
        self.stages.waited += time.perf_counter() - began
        return loaded


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
        job, n = image.job, len(image.job.boxes)
        # The hash identifies later the file that the rows were made from.
        for writer in writers:
            if image.xxh3 is not None:
                writer.record_image(job.image, image.xxh3)
            if image.fault is not None:
                last = job.first + n - 1
                writer.record_bad(BadImage(job.image, job.path, job.first, last, image.fault))
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
