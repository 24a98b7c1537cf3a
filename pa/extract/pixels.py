"""Decode images in advance, in threads, to the uint8 pixels of their regions, in order.

Pillow releases the interpreter lock while it decodes and resizes, so threads are enough and nothing
is pickled or forked.

B: regions of an image, S: side of the encoder's input, H, W: pixels of a canvas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data import images as im
from pa.data.images import Transform
from pa.data.schema import Box
from pa.data.store import image_files
from pa.data.store.image_files import NotAFileError, Status
from pa.data.views import View
from pa.errors import ImageError
from pa.extract.stages import Stages

CutKey = tuple[Any, ...]  # the fields of a transform that change the pixels; see View.cut_key


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
        workers: int,
        ahead_images: int = 0,
        canvases: bool = False,
    ) -> None:
        self.root = root
        self.view = view
        self.transforms = {view.cut_key(transform): transform for transform in transforms}
        self.stages = stages
        self.workers = workers
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
        path = self.root / job.path
        try:
            with self.stages.timed("read"):
                content = image_files.read(path)
        except NotAFileError as error:
            return Loaded(job, {}, str(error))
        except MemoryError:
            return Loaded(job, {}, "not enough memory to read it")
        except OSError as error:
            return Loaded(job, {}, f"cannot read the file: {error.strerror or error}")
        cuts: Mapping[CutKey, Cut] = {}
        fault = None
        try:
            with self.stages.timed("decode"):
                image = im.decode(content.data, job.path)
            with self.stages.timed("cut"):
                cuts = {key: self._cut(image, job, t) for key, t in self.transforms.items()}
        except ImageError as error:
            fault = error.reason
        except MemoryError:
            fault = "not enough memory to decode it"
        return Loaded(job, cuts, fault, content.xxh3, content.status)

    def _cut(self, image: Image.Image, job: ImageJob, transform: Transform) -> Cut:
        canvas = self.view.canvas(image, transform)
        if self.canvases:
            return Cut(im.stack([canvas]), np.array(job.boxes, np.int64)[:, :2])  # x0, y0
        return Cut(self.view.cut(canvas, job.boxes, transform))

    @property
    def busy(self) -> bool:
        """Return whether requested images have not been consumed yet."""
        return bool(self._waiting)

    def ahead(self, jobs: Iterable[ImageJob | None]) -> Iterator[Loaded]:
        """Yield the loaded jobs in order, while threads load later ones.

        A job of None means that the next job depends on the consumption of an image; it is allowed
        only while the loader is `busy`.
        """
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
            for future in waiting:
                future.cancel()
            waiting.clear()

    def _next(self) -> Loaded:
        future = self._waiting.popleft()
        with self.stages.waiting():
            return future.result()
