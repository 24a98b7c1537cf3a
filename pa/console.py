"""What a person sees in the terminal: progress, tables, errors. Progress and notes go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import TaskID

Seen = TypeVar("Seen")

PLAIN_INTERVAL = 10.0  # seconds between lines where stderr is no terminal


def note(text: str) -> None:
    """One line on stderr, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the place that prints


def out(text: str) -> None:
    """A result on stdout."""
    print(text, flush=True)  # noqa: T201


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(7.3), duration(83), duration(7384)
    ('7.3 s', '1 min 23 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: float) -> str:
    """Bytes as a person says them.

    >>> size(999), size(3_200_000)
    ('999 B', '3.2 MB')
    """
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        n_bytes /= 1000
        if n_bytes < 1000:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1000:.1f} TB"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """A plain table; `right` holds a letter r for each column that aligns right.

    >>> print(table(["name", "n"], [["a", "10"], ["bb", "9"]], right=" r"))
    name   n
    a     10
    bb     9
    """
    widths = [max(len(line[i]) for line in (headers, *rows)) for i in range(len(headers))]
    right = right.ljust(len(headers))
    lines = []
    for line in (headers, *rows):
        cells = [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


class LiveProgress:
    """A bar with items/s and ETA in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self._rate = Rate()
        self._task: TaskID | None = None

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._rate = Rate()
        self._task = self._bar.add_task(title, total=total, completed=done, unit=unit, speed="")
        self._bar.start()

    def advance(self, n: int) -> None:
        if self._task is not None:
            self._rate.add(n)
            self._bar.update(self._task, advance=n, speed=f"{self._rate.per_second:.1f}/s")

    def note(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self._bar.stop()


class PlainProgress:
    """A line every ten seconds, for logs of batch jobs."""

    def __init__(self) -> None:
        self._title = self._unit = ""
        self._total = self._done = 0
        self._told = 0.0
        self._rate = Rate()

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._title, self._unit, self._total, self._done = title, unit, total, done
        self._rate = Rate()
        self._told = time.monotonic()
        note(f"{title}: {total} {unit}" + (f", {done} done before" if done else ""))

    def advance(self, n: int) -> None:
        self._done += n
        self._rate.add(n)
        now = time.monotonic()
        if now - self._told >= PLAIN_INTERVAL:
            self._told = now
            speed = self._rate.per_second
            left = duration((self._total - self._done) / speed) if speed else "?"
            done = f"{self._done}/{self._total} {self._unit}"
            note(f"{self._title}: {done}, {speed:.1f}/s, {left} left")

    def note(self, text: str) -> None:
        note(text)

    def stop(self) -> None:
        pass


class Rate:
    """Items per second since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._n = 0

    def add(self, n: int) -> None:
        self._n += n

    @property
    def per_second(self) -> float:
        return self._n / max(time.monotonic() - self._start, 1e-9)


def progress() -> LiveProgress | PlainProgress:
    """The progress display that suits stderr."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return LiveProgress() if is_terminal else PlainProgress()


def watch(
    look: Callable[[], Seen],
    *,
    seconds: float,
    live: Callable[[Seen], str] | None,
    line: Callable[[Seen], str],
    until: Callable[[Seen], bool],
) -> None:
    """Show what `look` sees again and again, `seconds` apart, until it is what `until` waits for.

    In a terminal the text of `live` is drawn over the last one; elsewhere, or without `live`, the
    text of `line` is printed below it.
    """
    if live is None or sys.stdout is None or not sys.stdout.isatty():
        out(line(seen := look()))
        while not until(seen):
            time.sleep(seconds)
            out(line(seen := look()))
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text(live(seen := look())), auto_refresh=False) as screen:
        while not until(seen):
            time.sleep(seconds)
            screen.update(Text(live(seen := look())), refresh=True)
