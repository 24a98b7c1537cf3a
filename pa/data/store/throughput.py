"""How fast a store grows, from its files alone: the times of its shards and its log of runs.

An estimate for display, on which nothing else depends: file times may be wrong, and where they are
implausible the throughput is unknown.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.data.store.reader import Store
from pa.data.store.spec import Spec

RECENT_SHARDS = 32  # enough to average over, few enough to follow a change of speed
PAUSE = 10  # a gap of 10 median gaps between shards separates two runs
CLOCK_SLACK = 2.0  # seconds by which the clock of a file server may be ahead


@dataclass(frozen=True)
class Throughput:
    rows_per_second: float
    source: str  # times of shards, or the log of a run


def run_speed(run: dict[str, Any]) -> float | None:
    """Return the rows per second of a line of runs.jsonl; None if it lacks them."""
    try:
        rows, wall = float(run["rows"]), float(run["seconds"]["wall"])
    except (KeyError, TypeError, ValueError):
        return None
    return rows / wall if rows > 0 and wall > 0 else None


def current_throughput(times: Sequence[tuple[float, int]], now: float) -> Throughput | None:
    """Estimate the throughput of the work in progress, all processes together.

    `times` are (time of completion in seconds, rows) of the finished shards. Only the newest 32
    count, and of these the ones since the last long pause. None for fewer than three, and for times
    in the future or all equal, which no working clock gives.
    """
    newest = sorted(times)[-RECENT_SHARDS:]
    if len(newest) < 3 or newest[-1][0] > now + CLOCK_SLACK:
        return None
    gaps = [late[0] - early[0] for early, late in itertools.pairwise(newest)]
    longest = PAUSE * max(statistics.median(gaps), 1e-3)
    begin = max((i + 1 for i, gap in enumerate(gaps) if gap > longest), default=0)
    burst = newest[begin:]  # since the last long pause
    # The first shard only starts the clock: when its own work began is unknown.
    seconds = burst[-1][0] - burst[0][0]
    if len(burst) < 3 or seconds <= 0:
        return None
    return Throughput(sum(rows for _, rows in burst[1:]) / seconds, "times of the newest shards")


def store_throughput(store: Store, *, in_work: bool) -> Throughput | None:
    """Return the throughput of the work in progress, or of the last run that logged its own."""
    if in_work:
        times = []
        for shard in store.plan:
            with contextlib.suppress(FileNotFoundError):
                times.append((store.shard_path(shard).stat().st_mtime, shard.n_rows))
        if current := current_throughput(times, time.time()):
            return current
    for run in reversed(store.runs()):
        if (speed := run_speed(run)) is not None:
            return Throughput(speed, f"last run, one process on {run.get('host', 'some host')}")
    return None


def recorded_throughput(features: Path, spec: Spec) -> Throughput | None:
    """Return the throughput of the longest logged run of the same encoder, view and precision."""
    query = StoreSelector(view=spec.view["name"], encoder=spec.encoder["name"])
    runs = [
        (run["rows"], speed, f"as {store.spec.dataset}/{store.spec.split} on {run.get('host')}")
        for store in stores.find(features, query)
        if store.spec.precision["compute"] == spec.precision["compute"]
        for run in store.runs()
        if (speed := run_speed(run)) is not None
    ]
    if not runs:
        return None
    # The longest, because a run of few rows is mostly start-up.
    _, speed, source = max(runs, key=lambda run: float(run[0]))
    return Throughput(speed, source)
