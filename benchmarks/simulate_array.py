"""Estimate when a job array is done and what it loses on the way, by simulating its tasks.

The tasks follow the rules of the real ones. A task begins with its share of the missing shards
(`Share.start`), continues with the shards after it, wraps around, and takes each shard that is
neither done nor locked by another task; it holds one shard ahead. After a full pass it lists the
missing shards again, and ends when other tasks hold all of them (`pa.extract.run`). A task that
is preempted or reaches its time limit loses the shard in work and returns to the queue; a task
that fails loses it and does not return (`pa.cluster.slurm`). One job after the array encodes the
remaining shards. The simulation is event-driven: ten thousand tasks take some seconds.

Not simulated: disks and networks that slow down under load, and faults of the last job.

S: shards, T: tasks.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError
from pa.extract.share import MAX_MISSES, Share

Kind = Literal["ready", "claim", "done", "fault", "queued"]
HOUR = 3600.0


@dataclass(frozen=True)
class Conditions:
    """A job array and its faults; times in seconds.

    At most `parallel` of the `tasks` run at the same time; None means all. After `limit` a task is
    requeued, at most `requeues` times. `failures` and `preemptions` are rates per hour of a running
    task. A task needs `start` before its first shard (to load the encoder) and `requeue` in the
    queue before it runs again. Speeds of tasks are log-normal with median 1 and standard deviation
    `spread` of the logarithm. A task takes its next shard when the fraction `ahead` of the current
    one remains. `fails_at` fixes the failure times of single tasks and `speeds` their speeds, for
    comparisons with real tasks.
    """

    tasks: int
    parallel: int | None = None
    limit: float | None = None
    requeues: int = 20
    failures: float = 0.0
    preemptions: float = 0.0
    start: float = 0.0
    requeue: float = 0.0
    spread: float = 0.0
    ahead: float = 0.1
    fails_at: Mapping[int, float] = field(default_factory=dict)
    speeds: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tasks < 1 or (self.parallel is not None and self.parallel < 1):
            raise UsageError(
                f"tasks ({self.tasks}) and parallel ({self.parallel}) must be 1 or more."
            )
        if not 0 <= self.ahead <= 1:
            raise UsageError(f"ahead ({self.ahead}) must be a fraction from 0 to 1.")
        rates = (self.failures, self.preemptions, self.start, self.requeue, self.spread)
        if min(rates) < 0 or (self.limit is not None and self.limit <= 0):
            raise UsageError("rates and times of a simulation cannot be negative.")

    @property
    def max_concurrent(self) -> int:
        return min(self.tasks, self.parallel or self.tasks)


@dataclass(frozen=True)
class ArrayEstimate:
    """Outcome of a simulated array; times in seconds.

    `finish` is the end of the last job, `array` the end of the last task, `complete` the time the
    last shard was done: tasks that start later load an encoder and find no work. `work` is the
    time to encode all shards once; `lost` the encoding that was thrown away; `running` the time
    for which tasks and the last job held their nodes. `taken_again` is the number of shards taken
    more than once; `shards` (T + 1) the number each task finished, the last job at the end; `idle`
    the number of tasks that finished none. `looks` counts listings of the missing shards, `tries`
    attempts on shards that were done or taken: both are requests to the file server.
    """

    finish: float
    complete: float
    array: float
    work: float
    ideal: float
    lost: float
    running: float
    taken_again: int
    shards: npt.NDArray[np.int64]
    idle: int
    failed: int
    preempted: int
    timed_out: int
    looks: int
    tries: int

    @property
    def by_last_job(self) -> int:
        """Number of shards encoded by the job after the array."""
        return int(self.shards[-1])

    def to_json(self) -> dict[str, Any]:
        named = ("finish", "complete", "array", "work", "ideal", "lost", "running", "taken_again")
        counts = ("by_last_job", "idle", "failed", "preempted", "timed_out", "looks", "tries")
        return {name: getattr(self, name) for name in (*named, *counts)}


def simulate_array(
    seconds: Sequence[float] | npt.NDArray[np.float64], conditions: Conditions, seed: int = 0
) -> ArrayEstimate:
    """Simulate an array whose shards take `seconds` (S,) each on a task of speed 1."""
    return _Array(np.asarray(seconds, dtype=np.float64), conditions, seed).run()


@dataclass(eq=False)
class _Task:
    """A task; events of a run before a requeue carry another `run` number and are ignored."""

    index: int
    speed: float
    run: int = 0
    began: float = 0.0
    time_outs: int = 0
    listed_at: float = 0.0  # time of the listing that the current pass goes over
    position: int = 0  # next shard of the pass; ≥ S after the wrap
    stop: int = 0  # end of the pass, ≥ S when it wraps
    took: bool = False  # whether this pass has taken a shard
    current: int | None = None
    current_began: float = 0.0
    ahead: int | None = None
    fault_after: dict[str, float] = field(default_factory=dict)  # seconds by kind of fault


class _Array:
    def __init__(self, seconds: npt.NDArray[np.float64], conditions: Conditions, seed: int) -> None:
        self.seconds, self.conditions = seconds, conditions
        self.random = np.random.default_rng(seed)
        self.n = len(seconds)
        self.free = np.ones(self.n, dtype=np.bool_)
        self.done_at = np.full(self.n, np.inf)
        self.times_taken = np.zeros(self.n, dtype=np.int64)
        self.finished = np.zeros(conditions.tasks + 1, dtype=np.int64)
        drawn = np.exp(conditions.spread * self.random.standard_normal(conditions.tasks))
        self.tasks = [
            _Task(i, conditions.speeds.get(i, float(drawn[i]))) for i in range(conditions.tasks)
        ]
        self.waiting = deque(self.tasks)
        self.slots = conditions.max_concurrent
        self.events: list[tuple[float, int, Kind, _Task, int]] = []
        self.number = itertools.count()
        self.now = self.running = self.lost = 0.0
        self.counts = {"failed": 0, "preempted": 0, "timed_out": 0, "looks": 0, "tries": 0}

    def run(self) -> ArrayEstimate:
        self._fill_slots()
        while self.events:
            now, _, kind, task, run = heapq.heappop(self.events)
            if run != task.run:
                continue
            self.now = now
            if kind == "queued":
                self.waiting.append(task)
                self._fill_slots()
            elif kind == "ready":
                self._look(task)
            elif kind == "claim":
                task.ahead = self._claim(task)
            elif kind == "done":
                self._done(task)
            else:
                self._fault(task)
        return self._result()

    def _result(self) -> ArrayEstimate:
        """Add the job after the array, which loads, encodes the rest and writes the manifest."""
        array = self.now
        left = np.isinf(self.done_at)
        self.finished[-1] = left.sum()
        self.times_taken[left] += 1
        last = self.conditions.start + float(self.seconds[left].sum())
        work = float(self.seconds.sum())
        return ArrayEstimate(
            finish=array + last,
            complete=array + last if left.any() else float(self.done_at.max(initial=0.0)),
            array=array,
            work=work,
            ideal=work / self.conditions.max_concurrent,
            lost=self.lost,
            running=self.running + last,
            taken_again=int((self.times_taken > 1).sum()),
            shards=self.finished,
            idle=int((self.finished[:-1] == 0).sum()),
            **self.counts,
        )

    def _push(self, delay: float, kind: Kind, task: _Task) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.number), kind, task, task.run))

    # -- tasks begin and end -----------------------------------------------------------------

    def _fill_slots(self) -> None:
        while self.slots and self.waiting:
            self.slots -= 1
            task = self.waiting.popleft()
            task.run += 1
            task.began = self.now
            self._push(self.conditions.start, "ready", task)
            task.fault_after = self._draw_faults(task)
            if math.isfinite(first := min(task.fault_after.values())):
                self._push(first, "fault", task)

    def _draw_faults(self, task: _Task) -> dict[str, float]:
        """Draw the seconds until each kind of fault of this run."""
        failure, preemption = (
            self.random.exponential(HOUR / rate) if rate else math.inf
            for rate in (self.conditions.failures, self.conditions.preemptions)
        )
        if task.index in self.conditions.fails_at:
            failure = self.conditions.fails_at[task.index] - self.now
        limit = math.inf if self.conditions.limit is None else self.conditions.limit
        return {"failed": failure, "preempted": preemption, "timed_out": limit}

    def _leave(self, task: _Task, *, requeued: bool = False) -> None:
        self.running += self.now - task.began
        task.run += 1
        self.slots += 1
        if requeued:
            self._push(self.conditions.requeue, "queued", task)
        self._fill_slots()

    def _fault(self, task: _Task) -> None:
        """Free the shards of the task; requeue it unless it failed."""
        kind = min(task.fault_after, key=lambda name: task.fault_after[name])
        self.counts[kind] += 1
        if task.current is not None:
            self.free[task.current] = True
            self.lost += self.now - task.current_began
        if task.ahead is not None:
            self.free[task.ahead] = True
        task.current = task.ahead = None
        task.time_outs += kind == "timed_out"
        again = kind != "failed" and task.time_outs <= self.conditions.requeues
        self._leave(task, requeued=again)

    # -- shards ------------------------------------------------------------------------------

    def _look(self, task: _Task) -> None:
        """Begin a pass over the shards missing now, in the order of `Share.order`, or end."""
        self.counts["looks"] += 1
        missing = np.flatnonzero(np.isinf(self.done_at))
        if not len(missing):
            self._leave(task)
            return
        first = Share(task.index, self.conditions.tasks).start(len(missing))
        task.listed_at = self.now
        task.position = int(missing[first])
        task.stop = task.position + self.n
        task.took = False
        shard = self._claim(task)
        if shard is None:
            self._leave(task)
        else:
            self._begin(task, shard)

    def _claim(self, task: _Task) -> int | None:
        """Return the next free shard of the pass; None at its end or after MAX_MISSES misses."""
        misses = 0
        while task.position < task.stop:
            start = task.position % self.n
            end = min(self.n, start + task.stop - task.position)
            ahead = int(self.free[start:end].argmax())
            is_free = bool(self.free[start + ahead])
            # Shards done before the pass began are not part of it.
            passed = self.done_at[start : start + ahead if is_free else end] > task.listed_at
            tried = int(passed.sum())
            if task.took and misses + tried >= MAX_MISSES:
                self.counts["tries"] += MAX_MISSES
                return None
            misses += tried
            task.position += len(passed) + is_free
            if is_free:
                self.counts["tries"] += misses
                self.free[start + ahead] = False
                self.times_taken[start + ahead] += 1
                task.took = True
                return start + ahead
        self.counts["tries"] += misses
        return None

    def _begin(self, task: _Task, shard: int) -> None:
        task.current, task.current_began, task.ahead = shard, self.now, None
        needed = float(self.seconds[shard]) / task.speed
        self._push(needed * (1 - self.conditions.ahead), "claim", task)
        self._push(needed, "done", task)

    def _done(self, task: _Task) -> None:
        assert task.current is not None
        self.done_at[task.current] = self.now
        self.finished[task.index] += 1
        task.current = None
        if task.ahead is not None:
            self._begin(task, task.ahead)
        else:
            self._look(task)
