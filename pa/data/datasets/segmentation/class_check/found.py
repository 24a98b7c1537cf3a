"""What a check of class counts finds, and the threads that all of them read with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pa.data.datasets.segmentation.ade20k_index import Count

T = TypeVar("T")
R = TypeVar("R")

BOTH = ("train", "val")


@dataclass
class ClassCheck:
    """What the files of one place say about the classes.

    `counts` are found against expected numbers; `faults` the files that are not what they should
    be; `all_zero` the masks without a labelled pixel, which are kept; `missing` the classes of the
    list that no file has; `differences` where masks and the text beside them disagree. `images` are
    those whose annotations were read, `of_images` those of the whole release (None: not a matter of
    images).
    """

    title: str
    n_classes: int | None = None
    paper_classes: int | None = None
    counts: list[Count] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    all_zero: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    images: int | None = None
    of_images: int | None = None

    @property
    def is_part(self) -> bool:
        """Whether the place holds a part of the release: its counts must then be smaller."""
        both = self.images is not None and self.of_images is not None
        return both and self.images < self.of_images  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        counts = [count.to_json() for count in self.counts]
        return {**vars(self), "is_part": self.is_part, "counts": counts}


def threaded(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map in threads, in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pa-check") as pool:
        yield from pool.map(work, items)
