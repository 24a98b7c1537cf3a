"""When a job array will be done, and what it loses on the way: a simulation of its tasks.

The tasks follow the rules of the real ones. A task begins with its share of what is missing
(`Share.start`), goes on with the shards behind it, around the end, and takes each that is neither
done nor in other hands; it holds one shard ahead; when it has been around it looks again, and ends
when all the rest is in other hands (`pa.extract.claims`). A task that is preempted or whose time is
over loses what it had in hand and is put back into the queue; one that fails loses it and is gone
(`pa.cluster.slurm`). One job after the array makes what is left. Time passes by events, so ten
thousand tasks are some seconds of computing.

Not simulated: disks and networks that slow down where many use them, and faults of the last job.

Shapes: S shards, T tasks.
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
from pa.extract.share import PATIENCE, Share

Kind = Literal["ready", "claim", "done", "fault", "queued"]
HOUR = 3600.0


@dataclass(frozen=True)
class Conditions:
    """A job array and what happens to it; times in seconds.

    `parallel` of the `tasks` run at once, all where None. After `limit` a task is requeued, at most
    `requeues` times. Failures and preemptions come at random, so many per hour of a running task.
    A task needs `start` before its first shard (loading the encoder), and `requeue` in the queue
    before it runs again. Speeds of tasks are log-normal of median 1 and the standard deviation
    `spread` of their logarithm. The next shard is taken when the share `ahead` of the one in hand
    is still to do. `fails_at` sets the failures of some tasks, in seconds from the beginning,
    `speeds` the speeds of some, for a comparison with real ones.
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
                f"{self.tasks} tasks, {self.parallel} at once: both must be 1 or more."
            )
        if not 0 <= self.ahead <= 1:
            raise UsageError(f"ahead {self.ahead}: a share of a shard, from 0 to 1.")
        rates = (self.failures, self.preemptions, self.start, self.requeue, self.spread)
        if min(rates) < 0 or (self.limit is not None and self.limit <= 0):
            raise UsageError("rates and times of a forecast cannot be negative.")

    @property
    def at_once(self) -> int:
        return min(self.tasks, self.parallel or self.tasks)


@dataclass(frozen=True)
class Forecast:
    """What a simulated array came to; times in seconds.

    `finish` is when the last job has ended, `array` when the last task had, `complete` when the
    last shard was done: tasks that begin later load an encoder to find nothing to do. `work` is the
    encoding of all shards, once; `lost` what was encoded and thrown away; `running` the time for
    which tasks held their nodes, the last job's too. `taken_again` shards were taken more than
    once; `shards` (T + 1) is how many each task finished, the last job at the end; `idle` tasks
    finished none. `looks` counts how often a task listed what is missing, `tries` the shards that
    one tried in vain, since they were done or taken: what the file server is asked.
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
        """Shards that were left to the job after the array."""
        return int(self.shards[-1])

    def to_json(self) -> dict[str, Any]:
        named = ("finish", "complete", "array", "work", "ideal", "lost", "running", "taken_again")
        counts = ("by_last_job", "idle", "failed", "preempted", "timed_out", "looks", "tries")
        return {name: getattr(self, name) for name in (*named, *counts)}


def forecast(
    seconds: Sequence[float] | npt.NDArray[np.float64], given: Conditions, seed: int = 0
) -> Forecast:
    """Simulate an array whose shards take `seconds` (S,) each on a task of speed 1."""
    return _Array(np.asarray(seconds, dtype=np.float64), given, seed).run()


@dataclass(eq=False)
class _Task:
    """A task; `run` tells events of an earlier run, before a requeue, from those of this one."""

    index: int
    speed: float
    run: int = 0
    began: float = 0.0
    time_outs: int = 0
    # The pass over what was missing at `looked`: where it stands, where it ends, behind the end of
    # the shards where it goes around; and whether it has taken any.
    looked: float = 0.0
    place: int = 0
    stop: int = 0
    took: bool = False
    hand: int | None = None
    hand_began: float = 0.0
    ahead: int | None = None
    ends: dict[str, float] = field(default_factory=dict)  # seconds until each kind of fault


class _Array:
    def __init__(self, seconds: npt.NDArray[np.float64], given: Conditions, seed: int) -> None:
        self.seconds, self.given = seconds, given
        self.random = np.random.default_rng(seed)
        self.n = len(seconds)
        self.free = np.ones(self.n, dtype=np.bool_)
        self.done_at = np.full(self.n, np.inf)
        self.times_taken = np.zeros(self.n, dtype=np.int64)
        self.finished = np.zeros(given.tasks + 1, dtype=np.int64)
        drawn = np.exp(given.spread * self.random.standard_normal(given.tasks))
        self.tasks = [_Task(i, given.speeds.get(i, float(drawn[i]))) for i in range(given.tasks)]
        self.waiting = deque(self.tasks)
        self.slots = given.at_once
        self.events: list[tuple[float, int, Kind, _Task, int]] = []
        self.number = itertools.count()
        self.now = self.running = self.lost = 0.0
        self.counts = {"failed": 0, "preempted": 0, "timed_out": 0, "looks": 0, "tries": 0}

    def run(self) -> Forecast:
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

    def _result(self) -> Forecast:
        """The job after the array: it loads, makes what is left, and writes the manifest."""
        array = self.now
        left = np.isinf(self.done_at)
        self.finished[-1] = left.sum()
        self.times_taken[left] += 1
        last = self.given.start + float(self.seconds[left].sum())
        work = float(self.seconds.sum())
        return Forecast(
            finish=array + last,
            complete=array + last if left.any() else float(self.done_at.max(initial=0.0)),
            array=array,
            work=work,
            ideal=work / self.given.at_once,
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
            self._push(self.given.start, "ready", task)
            task.ends = self._draw_faults(task)
            if math.isfinite(first := min(task.ends.values())):
                self._push(first, "fault", task)

    def _draw_faults(self, task: _Task) -> dict[str, float]:
        """How long this run would go until each kind of fault."""
        failure, preemption = (
            self.random.exponential(HOUR / rate) if rate else math.inf
            for rate in (self.given.failures, self.given.preemptions)
        )
        if task.index in self.given.fails_at:
            failure = self.given.fails_at[task.index] - self.now
        limit = math.inf if self.given.limit is None else self.given.limit
        return {"failed": failure, "preempted": preemption, "timed_out": limit}

    def _leave(self, task: _Task, *, requeued: bool = False) -> None:
        self.running += self.now - task.began
        task.run += 1
        self.slots += 1
        if requeued:
            self._push(self.given.requeue, "queued", task)
        self._fill_slots()

    def _fault(self, task: _Task) -> None:
        """What the task has in hand is free again."""
        kind = min(task.ends, key=lambda name: task.ends[name])
        self.counts[kind] += 1
        if task.hand is not None:
            self.free[task.hand] = True
            self.lost += self.now - task.hand_began
        if task.ahead is not None:
            self.free[task.ahead] = True
        task.hand = task.ahead = None
        task.time_outs += kind == "timed_out"
        again = kind != "failed" and task.time_outs <= self.given.requeues
        self._leave(task, requeued=again)

    # -- shards ------------------------------------------------------------------------------

    def _look(self, task: _Task) -> None:
        """A new pass over what is missing now, as `Share.order` orders it; or the end."""
        self.counts["looks"] += 1
        missing = np.flatnonzero(np.isinf(self.done_at))
        if not len(missing):
            self._leave(task)
            return
        first = Share(task.index, self.given.tasks).start(len(missing))
        task.looked = self.now
        task.place = int(missing[first])
        task.stop = task.place + self.n
        task.took = False
        claimed = self._claim(task)
        if claimed is None:
            self._leave(task)
        else:
            self._begin(task, claimed)

    def _claim(self, task: _Task) -> int | None:
        """The next shard of the pass that nobody has; None at its end, or where patience ends."""
        vain = 0
        while task.place < task.stop:
            start = task.place % self.n
            end = min(self.n, start + task.stop - task.place)
            ahead = int(self.free[start:end].argmax())
            found = bool(self.free[start + ahead])
            # What was done before the pass began is not in it.
            passed = self.done_at[start : start + ahead if found else end] > task.looked
            tried = int(passed.sum())
            if task.took and vain + tried >= PATIENCE:
                self.counts["tries"] += PATIENCE
                return None
            vain += tried
            task.place += len(passed) + found
            if found:
                self.counts["tries"] += vain
                self.free[start + ahead] = False
                self.times_taken[start + ahead] += 1
                task.took = True
                return start + ahead
        self.counts["tries"] += vain
        return None

    def _begin(self, task: _Task, shard: int) -> None:
        task.hand, task.hand_began, task.ahead = shard, self.now, None
        needed = float(self.seconds[shard]) / task.speed
        self._push(needed * (1 - self.given.ahead), "claim", task)
        self._push(needed, "done", task)

    def _done(self, task: _Task) -> None:
        assert task.hand is not None
        self.done_at[task.hand] = self.now
        self.finished[task.index] += 1
        task.hand = None
        if task.ahead is not None:
            self._begin(task, task.ahead)
        else:
            self._look(task)
