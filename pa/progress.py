"""Report the progress of long work: the library reports, the command line displays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Receiver of the progress of long work."""

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Begin work on `total` items, of which `done` are already finished."""

    def advance(self, n: int) -> None:
        """Report n more finished items."""

    def note(self, text: str) -> None:
        """Report something in one line."""

    def stop(self) -> None:
        """End the work, successful or not."""


class Silent:
    """Progress that is not displayed."""

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Named:
    """Progress that adds a name to each title, such as `cub/test · deit`."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self.advance = progress.advance
        self.note = progress.note
        self.stop = progress.stop

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._progress.start(f"{title} · {self._name}", total, unit, done)


def track(progress: Progress, items: Iterable[T], title: str, total: int, unit: str) -> Iterator[T]:
    """Yield the items, and report each of them as finished when it is yielded."""
    progress.start(title, total, unit)
    try:
        for item in items:
            progress.advance(1)
            yield item
    finally:
        progress.stop()


class Stopwatch:
    """Seconds of the stages of a run, by name, in `laps`."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage, which began when the last one ended."""
        now = time.perf_counter()
        self.laps[stage], self._last = now - self._last, now
