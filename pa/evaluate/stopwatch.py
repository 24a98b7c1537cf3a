"""Seconds of the stages of a run, as results report them."""

from __future__ import annotations

import time


class Stopwatch:
    """`laps` holds the seconds of every stage so far, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage: it took from the end of the one before, or from the start, until now."""
        now = time.perf_counter()
        self.laps[stage], self._last = now - self._last, now
