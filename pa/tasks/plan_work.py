"""`pa plan index build`, `probe linear`, `probe attentive`, `evaluate retrieval`.

What a command on stored features will write, hold in memory and take, before it begins. Which
stores and rows those are is settled by the command's own functions, so that what it would refuse is
refused here; its time comes from a short run of its own code on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import StorageError, UsageError
from pa.progress import Progress
from pa.tasks.plan import free_bytes

if TYPE_CHECKING:
    from pa.tasks.evaluate import EvaluateRequest
    from pa.tasks.index import IndexRequest
    from pa.tasks.probe import ProbeRequest
    from pa.tasks.probe_attentive import AttentiveRequest

MEMINFO, STATM = Path("/proc/meminfo"), Path("/proc/self/statm")


@dataclass(frozen=True)
class WorkItem:
    """One index, probe or score: `rows` it reads, what it writes, and `memory`, the bytes of its
    arrays at their most; `seconds` on this machine."""

    what: str
    rows: int
    files: int
    bytes: int
    memory: int
    seconds: float


@dataclass(frozen=True)
class WorkPlan:
    """Items that are done one after the other.

    `resident` are the bytes that a process with the libraries loaded holds, `available` those that
    the system could give; None where it does not say. `measured` says where the times come from.
    """

    items: tuple[WorkItem, ...]
    place: Path
    free: int
    resident: int
    available: int | None
    measured: str

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def seconds(self) -> float:
        return sum(item.seconds for item in self.items)

    @property
    def memory(self) -> int:
        """Bytes at the most: items follow each other."""
        return self.resident + max((item.memory for item in self.items), default=0)

    @property
    def fits(self) -> bool:
        return self.fits_memory and self.bytes <= self.free

    @property
    def fits_memory(self) -> bool:
        return self.available is None or self.memory - self.resident <= self.available

    def to_json(self) -> dict[str, Any]:
        return {
            "items": [asdict(item) for item in self.items],
            "bytes": self.bytes,
            "memory": self.memory,
            "seconds": self.seconds,
            "measured": self.measured,
            "place": str(self.place),
            "free": self.free,
            "memory_available": self.available,
            "fits": self.fits,
        }


def check_room(plan: WorkPlan) -> None:
    """Raise `StorageError` where the disk or the memory is too small for a plan."""
    if plan.bytes > plan.free:
        raise StorageError(
            f"this needs {plan.bytes / 1e9:.2f} GB, and {plan.place} has {plan.free / 1e9:.2f} GB "
            f"free. Free some space (`pa gc` lists what nothing needs), or choose another "
            f"--workspace."
        )
    if not plan.fits_memory:
        assert plan.available is not None
        raise StorageError(
            f"this needs {plan.memory / 1e9:.2f} GB of memory, and this machine has "
            f"{plan.available / 1e9:.2f} GB to give. Take fewer rows or a smaller index (--index, "
            f"--pieces), keep fewer tokens (--memory), or run it on a larger machine."
        )


def plan_indexes(config: Config, request: IndexRequest, progress: Progress) -> WorkPlan:
    """Plan what `pa index build` would do with the same request."""
    from pa.index.forecast import forecast_build
    from pa.tasks.index import indexes_to_build

    work, factory = indexes_to_build(config, request)
    items = []
    for store, representation in work:
        progress.note(f"measuring: {factory} of {store.title} · {representation}")
        found = forecast_build(store, representation, factory, request.pieces)
        what = f"{factory} · {store.title} · {representation}"
        files = 2 + (request.pieces > 1) + bool(store.bad)
        items.append(WorkItem(what, store.n_rows, files, found.bytes, found.memory, found.seconds))
    told = "reading, adding and comparing up to 8,192 rows, on the CPU"
    return _plan(items, config.indexes, told)


def plan_linear(config: Config, request: ProbeRequest, progress: Progress) -> WorkPlan:
    """Plan what `pa probe linear` would do. Raises `UsageError` for --shots."""
    from pa.probe.forecast import forecast_linear
    from pa.probe.recipes import permitted_differences
    from pa.probe.selection import split_rows
    from pa.tasks.probe import linear_run

    if request.shots:
        raise UsageError(
            "--shots trains on a few rows of each class, which no plan is made of: leave it out "
            "here, or run it."
        )
    run = linear_run(config, request)
    split = split_rows(run.train, run.test, run.options, permitted_differences(run.recipe.protocol))
    progress.note(f"measuring: a few epochs on {run.train.title}")
    found = forecast_linear(split, run.representation, run.recipe, run.extras, run.device)
    rows = len(split.train.rows) + len(split.test.rows)
    what = f"probe linear · {run.train.title} · {run.representation}"
    item = WorkItem(what, rows, found.files, found.bytes, found.memory, found.seconds)
    return _plan([item], config.results, f"epochs on up to 8,192 rows, on {run.device}")


def plan_attentive(config: Config, request: AttentiveRequest, progress: Progress) -> WorkPlan:
    """Plan what `pa probe attentive` would do."""
    from pa.probe.attentive.forecast import forecast_attentive
    from pa.probe.recipes import permitted_differences
    from pa.probe.selection import split_rows
    from pa.tasks.probe_attentive import attentive_run

    run = attentive_run(config, request)
    split = split_rows(run.train, run.test, run.options, permitted_differences(run.recipe.protocol))
    progress.note(f"measuring: a few steps on {run.train.title}")
    found = forecast_attentive(split, run.recipe, run.extras, run.device)
    rows = len(split.train.rows) + len(split.test.rows)
    what = f"probe attentive · {run.train.title} · cls+patch"
    item = WorkItem(what, rows, found.files, found.bytes, found.memory, found.seconds)
    return _plan([item], config.results, f"epochs on up to 256 rows, on {run.device}")


def plan_retrieval(config: Config, request: EvaluateRequest, progress: Progress) -> WorkPlan:
    """Plan what `pa evaluate retrieval` would do."""
    from pa.evaluate.forecast import forecast_differences, forecast_scoring
    from pa.evaluate.rows import rows_to_score
    from pa.tasks.evaluate import retrieval_work

    work = retrieval_work(config, request)
    rows = rows_to_score(work.stores[0], request.target)
    items = []
    for store, name in work.pairs:
        progress.note(f"measuring: {store.title} · {name}")
        found = forecast_scoring(
            store, name, rows, include_self=work.protocol.include_self, device=work.device
        )
        what = f"retrieval · {store.title} · {name}"
        n = len(rows.ids)
        items.append(WorkItem(what, n, found.files, found.bytes, found.memory, found.seconds))
    whole = [(str(store.path), name) for store, name in work.pairs if ":" not in name]
    paired = forecast_differences(rows, whole)
    if paired.files:
        what = "paired differences"
        items.append(WorkItem(what, len(rows.ids), paired.files, paired.bytes, 0, paired.seconds))
    return _plan(items, config.results, f"rankings of up to 4,096 rows, on {work.device}")


def _plan(items: Sequence[WorkItem], place: Path, told: str) -> WorkPlan:
    return WorkPlan(
        items=tuple(items),
        place=place,
        free=free_bytes(place),
        resident=_resident(),
        available=_available(),
        measured=f"measured here and now: {told}",
    )


def _resident() -> int:
    """Bytes that this process holds, with the same libraries as the command; 0 if unknown."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _available() -> int | None:
    """Bytes of memory that the system could give; None where it does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(found.split()[1])
    except (OSError, ValueError, StopIteration):
        return None
