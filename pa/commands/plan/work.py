"""The plan of a command on stored features: bytes, files and memory from shapes, recorded time.

Shared by `pa plan index build`, `probe linear`, `probe attentive` and `evaluate retrieval`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from pa.commands import console, options
from pa.errors import PaError, StorageError

MEMINFO = Path("/proc/meminfo")

# Measured sizes in bytes: a result with its versions and counts, what each class and each cell of
# the confusion matrix adds to it, and a Parquet table with what each epoch adds to it.
RESULT_BYTES, CLASS_BYTES, CELL_BYTES, TABLE_BYTES, EPOCH_BYTES = 3_500, 180, 7, 3_500, 30


@dataclass(frozen=True)
class WorkItem:
    """One index, probe or score.

    `rows` are read, `files` of `bytes` in all are written, `memory` is the peak size of the arrays
    in bytes; `seconds` is None if no earlier run was recorded.
    """

    what: str
    rows: int
    files: int
    bytes: int
    memory: int
    seconds: float | None


@dataclass(frozen=True)
class WorkPlan:
    """Items that are done one after the other, and the free disk and memory."""

    items: tuple[WorkItem, ...]
    folder: Path
    free: int  # bytes on the disk of the folder
    available: int | None  # bytes of memory; None where the system does not report them

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def seconds(self) -> float | None:
        known = [item.seconds for item in self.items if item.seconds is not None]
        return sum(known) if len(known) == len(self.items) else None

    @property
    def memory(self) -> int:
        """Peak size of the arrays of an item: items follow each other."""
        return max((item.memory for item in self.items), default=0)

    @property
    def fits_memory(self) -> bool:
        return self.available is None or self.memory <= self.available

    def to_json(self) -> dict[str, Any]:
        return {
            "items": [asdict(item) for item in self.items],
            "bytes": self.bytes,
            "memory": self.memory,
            "seconds": self.seconds,
            "place": str(self.folder),
            "free": self.free,
            "memory_available": self.available,
            "fits": self.fits_memory and self.bytes <= self.free,
        }


def same_options(plan: click.Command, command: click.Command) -> click.Command:
    """Return a plan that accepts all options of its command; those it does not need are ignored."""
    needed = {option.name: option for option in plan.params}
    same = [needed.get(option.name) or copy.copy(option) for option in command.params]
    for option in same:
        option.expose_value = option.name in needed
    plan.params = [*same, *(option for option in plan.params if option not in same)]
    return plan


def recorded_seconds(
    results: Path,
    task: str,
    work: float,
    work_of: Callable[[Any], float | None],
    stage: str | None = None,
) -> float | None:
    """Return the time of the newest comparable result of a task, scaled to `work` units.

    `work_of` returns the units of work of a result, None where it is not comparable. With `stage`,
    the time is that of one stage.
    """
    from pa.evaluate.result_files import read_result

    paths = (results / task).glob("*.json")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        with contextlib.suppress(PaError, KeyError):  # damaged, or without what is compared
            result = read_result(path).result
            if units := work_of(result):
                laps = result.seconds
                return (sum(laps.values()) if stage is None else laps[stage]) * work / units
    return None


def probe_bytes(n_classes: int, seeds: int, head: int, epochs: int, tables: int = 1) -> int:
    """Return the bytes of the result, the tables and the heads of a probe.

    `head` is the number of float32 parameters of a seed; each table has a row per seed and epoch.
    """
    result = RESULT_BYTES + CLASS_BYTES * n_classes + CELL_BYTES * n_classes**2
    return result + 4 * seeds * head + tables * TABLE_BYTES + EPOCH_BYTES * seeds * epochs


def report(items: Sequence[WorkItem], folder: Path, as_json: bool) -> None:
    """Print a plan. Raises `StorageError` if the disk or the memory is too small for it."""
    from pa.data.files import free_bytes

    plan = WorkPlan(tuple(items), folder, free_bytes(folder), available_memory())
    if as_json:
        options.emit(plan.to_json())
    else:
        size, rows = console.size, []
        for item in items:
            sizes = [size(item.bytes), size(item.memory)]
            cells = [item.what, f"{item.rows:,}", str(item.files), *sizes]
            rows.append([*cells, time_text(item.seconds)])
        heads = ["work", "rows", "files", "to write", "arrays", "time"]
        memory = f"peak memory of the arrays: {size(plan.memory)}"
        if plan.available is not None:
            room = f"available on this machine: {size(plan.available)}"
            memory += f"; {room}, {verdict(plan.fits_memory)}"
        console.out(console.table(heads, rows, " rrrrr"))
        console.out(f"total {size(plan.bytes)}, time {time_text(plan.seconds)}")
        console.out(
            f"free on the disk of {folder}: {size(plan.free)}, {verdict(plan.bytes <= plan.free)}"
        )
        console.out(memory)
    check_room(plan)


def check_room(plan: WorkPlan) -> None:
    """Raise `StorageError` if the disk or the memory is too small for a plan."""
    if plan.bytes > plan.free:
        raise StorageError(
            f"the plan needs {plan.bytes / 1e9:.2f} GB of disk, and {plan.folder} has "
            f"{plan.free / 1e9:.2f} GB free. Free some space (`pa gc` lists unused files), or "
            f"choose another --workspace."
        )
    if plan.available is not None and not plan.fits_memory:
        raise StorageError(
            f"the plan needs {plan.memory / 1e9:.2f} GB of memory, and this machine has "
            f"{plan.available / 1e9:.2f} GB available. Use fewer rows or a smaller index (--index, "
            f"--pieces), keep fewer tokens in memory (--memory), or run it on a larger machine."
        )


def available_memory() -> int | None:
    """Return the bytes of memory that the system can provide; None if it does not report it."""
    try:
        lines = MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError, StopIteration):
        return None


def verdict(fits: bool) -> str:
    return "enough" if fits else "TOO LITTLE"


def time_text(seconds: float | None) -> str:
    """Return an expected time, which may be unknown."""
    return "unknown" if seconds is None else console.duration(seconds)
