"""Measure the time of the stages of an extraction, and determine the slowest one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start

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
