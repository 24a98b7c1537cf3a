"""Terminal output: progress, tables and notes. Progress and notes go to stderr."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

Seen = TypeVar("Seen")

GAP = "  "  # between the columns of a table
INDENT = 2  # columns that commands put before some of their tables
WRAPPED = 12  # fewest letters of a line to which text in a table is wrapped
# Letters of the columns of a progress line: "100%", "0:00:00", "12345.6/s"; the longest bar and
# the shortest one worth showing.
PERCENT, ETA, SPEED, BAR, SHORTEST_BAR = 4, 7, 9, 40, 5
PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is not a terminal


def note(text: str) -> None:
    """Print one line on stderr, if it exists."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the place that prints


def out(text: str) -> None:
    """Print a result on stdout."""
    print(text, flush=True)  # noqa: T201


def duration(seconds: float) -> str:
    """Return human-readable seconds.

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
    """Return human-readable bytes.

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
    """Return a plain table; `right` holds a letter r for each column that aligns right.

    >>> print(table(["name", "n"], [["a", "10"], ["bb", "9"]], right=" r"))
    name   n
    a     10
    bb     9
    """
    right = right.ljust(len(headers))
    widths = [max(len(line[i]) for line in (headers, *rows)) for i in range(len(headers))]
    if sys.stdout is not None and sys.stdout.isatty():
        room = max(shutil.get_terminal_size().columns - INDENT, 20)
        if sum(widths) + len(GAP) * (len(widths) - 1) > room:
            return _narrow_table(headers, rows, right, widths, room)
    lines = []
    for line in (headers, *rows):
        cells = [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, right, strict=True)
        ]
        lines.append(GAP.join(cells).rstrip())
    return "\n".join(lines)


def _narrow_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: str,
    widths: Sequence[int],
    room: int,
) -> str:
    """Return a table with wrapped text, or with one line per cell if that is too narrow."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    least = [n if side == "r" else min(n, WRAPPED) for n, side in zip(widths, right, strict=True)]
    names = " ".join([headers[0], *(row[0] for row in rows)])
    least[0] = max(least[0], *map(len, names.split()))  # a name is looked up, so never cut
    padding = (0, len(GAP), 0, 0)
    if sum(least) + len(GAP) * (len(widths) - 1) <= room:
        grid = Table(box=None, padding=padding, pad_edge=False, header_style="")
        for header, side, n in zip(headers, right, least, strict=True):
            is_number = side == "r"
            grid.add_column(
                Text(header),
                justify="right" if is_number else "left",
                no_wrap=is_number,
                min_width=n,
                overflow="fold",
            )
        for row in rows:
            grid.add_row(*map(Text, row))
    else:
        grid = Table(box=None, padding=padding, pad_edge=False, show_header=False)
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for row in rows:
            if grid.row_count:
                grid.add_row("", "")
            for header, cell in zip(headers, row, strict=True):
                if cell:
                    grid.add_row(Text(header), Text(cell))
        grid.add_row("", "")  # sets the last row apart from what follows, as the others
    console = Console(width=room, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


class LiveProgress:
    """A bar with items/s and ETA in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began, self._advanced = 0.0, 0

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        from rich.progress import Progress

        self.stop()
        self._began, self._advanced = time.monotonic(), 0
        # One display for each piece of work: those that ended stay above it, and are drawn once.
        self._bar = Progress(*self._columns(title, total, unit), console=self._console)
        self._task = self._bar.add_task(title, total=total, completed=done, unit=unit, speed="")
        self._bar.start()

    def _columns(self, title: str, total: int, unit: str) -> list[ProgressColumn]:
        """Return the columns that fit: first the bar is dropped, then the speed, then part of the
        title."""
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.table import Column

        count = 2 * len(str(total)) + 1 + 1 + len(unit)
        room = self._console.width - (count + 1) - (PERCENT + 1) - (ETA + 1)
        shows_speed = room - (SPEED + 1) >= len(title)
        room -= (SPEED + 1) * shows_speed
        bar = min(room - len(title) - 1, BAR)
        title_width = len(title) if bar >= SHORTEST_BAR else max(1, min(len(title), room))
        columns: list[ProgressColumn] = [
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(width=title_width, no_wrap=True, overflow="ellipsis"),
            )
        ]
        if bar >= SHORTEST_BAR:
            columns.append(BarColumn(bar_width=bar))
        columns += [
            TaskProgressColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        ]
        if shows_speed:
            columns.append(TextColumn("{task.fields[speed]}"))
        return [*columns, TimeRemainingColumn(compact=True)]

    def advance(self, n: int) -> None:
        if self._bar is not None and self._task is not None:
            # Since the start: rich's own speed covers only the last updates, and jumps.
            self._advanced += n
            speed = self._advanced / max(time.monotonic() - self._began, 1e-9)
            self._bar.update(self._task, advance=n, speed=f"{speed:.1f}/s")

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


class PlainProgress:
    """A line every ten seconds, for logs of batch jobs."""

    def __init__(self) -> None:
        self._title = self._unit = ""
        self._total = self._done = self._before = 0
        self._began = self._last_line = 0.0

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._title, self._unit, self._total = title, unit, total
        self._done = self._before = done
        self._began = self._last_line = time.monotonic()
        note(f"{title}: {total} {unit}" + (f", {done} done before" if done else ""))

    def advance(self, n: int) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL:
            self._last_line = now
            # What an earlier run did took no time of this one.
            speed = (self._done - self._before) / max(now - self._began, 1e-9)
            left = duration((self._total - self._done) / speed) if speed else "?"
            done = f"{self._done}/{self._total} {self._unit}"
            note(f"{self._title}: {done}, {speed:.1f}/s, {left} left")

    def note(self, text: str) -> None:
        note(text)

    def stop(self) -> None:
        pass


def progress() -> LiveProgress | PlainProgress:
    """Return the progress display for stderr."""
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
    """Show the value of `look` every `seconds` until `until` holds for it.

    In a terminal the text of `live` replaces the last one; elsewhere, or without `live`, the text
    of `line` is printed.
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
