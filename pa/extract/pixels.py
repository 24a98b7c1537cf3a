"""Decode ahead: images become the uint8 pixels of their regions in threads, in order.

Pillow releases the interpreter while it decodes and resizes, so threads are enough and nothing has
to be pickled or forked. Shapes: B regions of an image, S side of the encoder's input.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data import images as im
from pa.data.images import Box, Transform
from pa.data.regions import View
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
class Loaded:
    """The pixels of an image's regions, (B, S, S, 3) uint8 per cut; or why there are none."""

    job: ImageJob
    pixels: Mapping[CutKey, npt.NDArray[np.uint8]]
    fault: str | None = None


class Loader:
    """Reads, decodes and cuts images once for all encoders."""

    def __init__(
        self, root: Path, view: View, transforms: Sequence[Transform], stages: Stages, workers: int
    ) -> None:
        self.root = root
        self.view = view
        self.cuts = {view.cut_key(transform): transform for transform in transforms}
        self.stages = stages
        self.workers = workers
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
                if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
                    return Loaded(job, {}, "not a regular file")
                data = path.read_bytes()
            with self.stages.timed("decode"):
                return Loaded(job, self._cut(data, job))
        except ImageError as error:
            return Loaded(job, {}, error.reason)
        except MemoryError:
            return Loaded(job, {}, "not enough memory to decode it")
        except OSError as error:
            return Loaded(job, {}, f"cannot read the file: {error.strerror or error}")

    def _cut(self, data: bytes, job: ImageJob) -> dict[CutKey, npt.NDArray[np.uint8]]:
        image = im.decode(data, job.path)
        return {
            key: self.view.cut(self.view.canvas(image, transform), job.boxes, transform)
            for key, transform in self.cuts.items()
        }

    def ahead(self, jobs: Sequence[ImageJob]) -> Iterator[Loaded]:
        """Load the jobs in order, a few images ahead of whoever takes them."""
        waiting: deque[Future[Loaded]] = deque()
        remaining = iter(jobs)
        try:
            for job in remaining:
                waiting.append(self._pool.submit(self.load, job))
                if len(waiting) > 2 * self.workers:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            for future in waiting:
                future.cancel()

    def _next(self, waiting: deque[Future[Loaded]]) -> Loaded:
        future = waiting.popleft()
        with self.stages.waiting():
            return future.result()
