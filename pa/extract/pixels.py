"""Decode ahead: images become the uint8 pixels of their regions in threads, in order.

Pillow releases the interpreter while it decodes and resizes, so threads are enough and nothing has
to be pickled or forked. Shapes: B regions of an image, S side of the encoder's input.
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
from PIL import Image

from pa.data import images as im
from pa.data.images import Transform
from pa.data.schema import Box
from pa.data.store import image_files
from pa.data.store.image_files import NotAFileError, Status
from pa.data.views import View
from pa.errors import ImageError
from pa.extract.stages import Stages

CutKey = tuple[Any, ...]


@dataclass(frozen=True)
class ImageJob:
    """One image to decode, and the regions to cut from it: rows `first` to `first + len(boxes)`.

    A box is a row's `cut_columns` of the view: x0, y0, x1, y1 and whatever else it needs.
    """

    image: int
    path: str
    first: int
    boxes: Sequence[Box]


@dataclass(frozen=True)
class Cut:
    """B regions of one image: their pixels, (B, S, S, 3) uint8.

    Or, with `corners` (B, 2), the canvas (1, H, W, 3) on which they lie: x and y of the upper left
    corners of windows that are still to be cut.
    """

    pixels: npt.NDArray[np.uint8]
    corners: npt.NDArray[np.int64] | None = None

    def part(self, start: int, stop: int) -> Cut:
        """Regions `start` to `stop`."""
        if self.corners is None:
            return Cut(self.pixels[start:stop])
        return Cut(self.pixels, self.corners[start:stop])


@dataclass(frozen=True)
class Loaded:
    """An image's regions, one `Cut` per key; or why there are none.

    `xxh3` is the hash of the file and `status` its state; None where it could not be read.
    """

    job: ImageJob
    cuts: Mapping[CutKey, Cut]
    fault: str | None = None
    xxh3: bytes | None = None
    status: Status | None = None


class Loader:
    """Reads, decodes and cuts images once for all encoders.

    `ahead_images` is how many images may lie ready. With `canvases` the windows of view `grid` are
    not cut here: a `Cut` then is a canvas and corners, a fiftieth of the bytes.
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
        self.ahead_images = max(ahead_images, 2 * workers)
        self.canvases = canvases
        self._waiting: deque[Future[Loaded]] = deque()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pa-decode")

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def load(self, job: ImageJob) -> Loaded:
        """Load one image. A fault of the file is part of the answer, not an exception."""
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
        cuts, fault = self._regions(job, content.data)
        return Loaded(job, cuts, fault, content.xxh3, content.status)

    def _regions(self, job: ImageJob, data: bytes) -> tuple[Mapping[CutKey, Cut], str | None]:
        try:
            with self.stages.timed("decode"):
                image = im.decode(data, job.path)
            with self.stages.timed("cut"):
                return {k: self._cut(image, job, t) for k, t in self.transforms.items()}, None
        except ImageError as error:
            return {}, error.reason
        except MemoryError:
            return {}, "not enough memory to decode it"

    def _cut(self, image: Image.Image, job: ImageJob, transform: Transform) -> Cut:
        canvas = self.view.canvas(image, transform)
        if self.canvases:
            return Cut(im.stack([canvas]), np.array(job.boxes, np.int64)[:, :2])
        return Cut(self.view.cut(canvas, job.boxes, transform))

    @property
    def busy(self) -> bool:
        """Whether images that were asked for have not been taken yet."""
        return bool(self._waiting)

    def ahead(self, jobs: Iterable[ImageJob | None]) -> Iterator[Loaded]:
        """Load the jobs in order, some images ahead of whoever takes them.

        A job of None says that there may be more, but not before an image has been taken: it may
        come only while the loader is `busy`.
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
