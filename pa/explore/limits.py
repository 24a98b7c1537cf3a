"""Limits: of the work that runs or waits at the same time, and of an uploaded image."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from PIL import Image

from pa.data import images as im
from pa.errors import BusyError, ImageError

T = TypeVar("T")

MAX_BYTES = 32 << 20  # a photograph of any camera
MAX_PIXELS = 50_000_000  # 150 MB decoded
# Formats of photographs: fewer than those of a dataset, since anyone may send these bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class ConcurrencyLimiter:
    """Run work in `running` threads; at most `waiting` more calls wait for one.

    One event loop uses it. A call beyond this number, or one that has waited for `timeout` seconds,
    raises `BusyError`: memory and waiting times stay bounded under any load.
    """

    def __init__(self, name: str, running: int, waiting: int, timeout: float = 20.0) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=f"pa-{name}")
        self._turns = asyncio.Semaphore(running)
        self._capacity = running + waiting
        self._admitted_count = 0
        self._timeout = timeout

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function in a thread once one is free.

        A function that has started runs to its end before the next one starts, even if its client
        has disconnected.
        """
        # Cancelling the request cancels the waiting, not the thread: its turn ends with the work.
        async with self._admitted():
            done = asyncio.get_running_loop().run_in_executor(self._pool, work)
            done.add_done_callback(lambda _: self._turns.release())
            return await asyncio.shield(done)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn for work on the event loop. Raise `BusyError` as `run` does."""
        async with self._admitted():
            try:
                yield
            finally:
                self._turns.release()

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Count the call and wait for a turn, which the caller releases."""
        if self._admitted_count >= self._capacity:
            raise self._busy()
        self._admitted_count += 1
        try:
            try:
                await asyncio.wait_for(self._turns.acquire(), self._timeout)
            except TimeoutError:
                raise self._busy() from None
            yield
        finally:
            self._admitted_count -= 1

    def close(self) -> None:
        """Drop waiting work and let running work finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _busy(self) -> BusyError:
        return BusyError(
            f"the explorer is busy: {self._admitted_count} requests for {self._name} are running "
            f"or waiting. Try again in a moment."
        )


class Limiters:
    """The limits of each kind of work."""

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        # Searches share the memory bandwidth, pictures share the cores.
        self.searches = ConcurrencyLimiter("searches", min(cores, 4), 64)
        self.pictures = ConcurrencyLimiter("pictures", min(2 * cores, 8), 2000, timeout=60.0)
        self.tables = ConcurrencyLimiter("tables", 2, 200)
        # An upload is received within a turn, which bounds the number of request bodies in memory.
        self.bodies = ConcurrencyLimiter("uploads", 4, 32)
        # One at a time: an encoder already uses all cores, or the GPU.
        self.uploads = ConcurrencyLimiter("uploads", 1, 8, timeout=120.0)

    def close(self) -> None:
        for limiter in (self.searches, self.pictures, self.tables, self.uploads):
            limiter.close()


class TooLargeError(ImageError):
    """The upload has too many bytes."""


async def receive(parts: AsyncIterator[bytes], content_length: str | None) -> bytes:
    """Return the body of a request. Raise `TooLargeError` once it exceeds the limit."""
    reason = f"more than {MAX_BYTES >> 20} MB; make it smaller"
    if content_length and content_length.isdecimal() and int(content_length) > MAX_BYTES:
        raise TooLargeError("the image", reason)
    # A client may leave out Content-Length, or state less than it sends.
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > MAX_BYTES:
            raise TooLargeError("the image", reason)
    return bytes(data)


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image to upright RGB with the decoder of the extraction.

    Raise `ImageError` for a format outside `FORMATS`, too many pixels, or broken data.
    """
    return im.decode(data, name, formats=FORMATS, max_pixels=MAX_PIXELS)
