"""How fast a store grows, from its files alone: the times of its shards, and its log of runs.

An estimate for people, and nothing else depends on it: file times may be wrong, and where they
cannot be believed the pace is unknown.
"""

from __future__ import annotations

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

RECENT_SHARDS = 32
PAUSE = 10  # a gap of so many times the median between shards: another run began there
CLOCK_SLACK = 2.0  # seconds that a file server's clock may be ahead of ours


@dataclass(frozen=True)
class Pace:
    """Rows per second, and what it was read from: the shards' times, or the last run's log."""

    rows_per_second: float
    source: str


def speed_of_run(run: dict[str, Any]) -> float | None:
    """Rows per second of one line of runs.jsonl; None where it does not say."""
    try:
        rows, wall = float(run["rows"]), float(run["seconds"]["wall"])
    except (KeyError, TypeError, ValueError):
        return None
    return rows / wall if rows > 0 and wall > 0 else None


def pace_of_work(times: Sequence[tuple[float, int]], now: float) -> Pace | None:
    """The pace of the work in progress, all processes together.

    `times` are (time of completion in seconds, rows) of the shards that are done. Only the newest
    32 count, and of these the ones since the last long pause. None where there are fewer than
    three, or where they lie in the future or all at one moment: then no clock can be believed.
    """
    newest = sorted(times)[-RECENT_SHARDS:]
    if len(newest) < 3 or newest[-1][0] > now + CLOCK_SLACK:
        return None
    gaps = [late[0] - early[0] for early, late in itertools.pairwise(newest)]
    longest = PAUSE * max(statistics.median(gaps), 1e-3)
    begin = max((i + 1 for i, gap in enumerate(gaps) if gap > longest), default=0)
    burst = newest[begin:]
    seconds = burst[-1][0] - burst[0][0]
    if len(burst) < 3 or seconds <= 0:
        return None
    return Pace(sum(rows for _, rows in burst[1:]) / seconds, "times of the newest shards")


def pace(store: Store, *, in_work: bool) -> Pace | None:
    """The pace of a store: of the work in progress, else of the last run that says its own."""
    if in_work:
        done = []
        for shard in store.plan:
            try:
                done.append((store.shard_path(shard).stat().st_mtime, shard.n_rows))
            except FileNotFoundError:
                continue
        if found := pace_of_work(done, time.time()):
            return found
    for run in reversed(store.runs()):
        if (speed := speed_of_run(run)) is not None:
            return Pace(speed, f"last run, one process on {run.get('host', 'some host')}")
    return None


def recorded_pace(features: Path, spec: Spec) -> Pace | None:
    """The pace of the longest recorded run of the same encoder, view and precision.

    Of the runs that the logs of the workspace's stores record, the one of the most rows: a run of
    few rows is mostly start-up. None where there was none.
    """
    best: tuple[float, Pace] | None = None
    query = StoreSelector(view=spec.view["name"], encoder=spec.encoder["name"])
    for store in stores.find(features, query):
        if store.spec.precision["compute"] != spec.precision["compute"]:
            continue
        for run in store.runs():
            speed = speed_of_run(run)
            if speed is not None and (best is None or run["rows"] > best[0]):
                source = f"as {store.spec.dataset}/{store.spec.split} on {run.get('host')}"
                best = float(run["rows"]), Pace(speed, source)
    return best[1] if best else None
