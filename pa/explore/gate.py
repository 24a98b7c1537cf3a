"""How many pieces of work run at once, how many wait, and when the answer is "come back later"."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from pa.errors import BusyError

T = TypeVar("T")


class Gate:
    """Runs work in `running` threads of its own; at most `waiting` more pieces wait their turn.

    One event loop uses it. Whoever comes when all places are taken, or has waited for `patience`
    seconds, gets `BusyError` at once: memory and waiting times stay bounded under any load.
    """

    def __init__(self, name: str, running: int, waiting: int, patience: float = 20.0) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=f"pa-{name}")
        self._turns = asyncio.Semaphore(running)
        self._places = running + waiting
        self._taken = 0
        self._patience = patience

    async def run(self, work: Callable[[], T]) -> T:
        """Do a piece of work in a thread when its turn comes.

        Work that has begun is brought to its end, even where nobody waits for it any more, before
        the next one takes its turn.
        """
        async with self._place():
            done = asyncio.get_running_loop().run_in_executor(self._pool, work)
            done.add_done_callback(lambda _: self._turns.release())
            return await asyncio.shield(done)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn for work of the event loop itself. Raises `BusyError` as `run` does."""
        async with self._place():
            try:
                yield
            finally:
                self._turns.release()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Take a place and wait for a turn, which the caller releases."""
        if self._taken >= self._places:
            raise self._busy()
        self._taken += 1
        try:
            try:
                await asyncio.wait_for(self._turns.acquire(), self._patience)
            except TimeoutError:
                raise self._busy() from None
            yield
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Forget what waits; let what runs come to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _busy(self) -> BusyError:
        return BusyError(
            f"the explorer is busy: {self._taken} requests for {self._name} are at work or waiting "
            f"already. Ask again in a moment."
        )


class Gates:
    """How much runs at once. Searches share memory bandwidth, pictures the cores."""

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        self.searches = Gate("searches", min(cores, 4), 64)
        self.pictures = Gate("pictures", min(2 * cores, 8), 2000, patience=60.0)
        self.tables = Gate("tables", 2, 200)
        # An image is received only with a turn, which bounds the number of bodies in memory.
        self.bodies = Gate("uploads", 4, 32)
        self.uploads = Gate("uploads", 1, 8, patience=120.0)

    def close(self) -> None:
        for gate in (self.searches, self.pictures, self.tables, self.uploads):
            gate.close()
