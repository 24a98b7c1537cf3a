"""What long work says while it runs. The library tells; the command line shows."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one piece of long work."""

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Work begins: `total` items in all, `done` of them earlier."""

    def advance(self, n: int) -> None:
        """n more items are done."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def stop(self) -> None:
        """The work ended, well or not."""


class Silent:
    """Says nothing."""

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Named:
    """Reports to another progress, with what is worked on after each title: `cub/test · deit`."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self.advance = progress.advance
        self.note = progress.note
        self.stop = progress.stop

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._progress.start(f"{title} · {self._name}", total, unit, done)
