"""The simulated job array against arithmetic and against real tasks that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.simulate_array import ArrayEstimate, Conditions, simulate_array
from pa.data import datasets
from pa.data.schema import Images
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract.run import extract
from pa.extract.share import Share
from pa.extract.stores import ExtractOptions
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour


def simulated(
    shards: int, tasks: int, seconds: float = 10.0, seed: int = 0, **conditions: Any
) -> ArrayEstimate:
    return simulate_array([seconds] * shards, Conditions(tasks, **conditions), seed)


@pytest.mark.parametrize(
    ("shards", "tasks", "parallel", "finish"),
    [
        *((12, 4, None, 30), (13, 4, None, 40), (3, 5, None, 10), (12, 1, None, 120)),
        *((12, 12, 3, 40), (12, 4, 8, 30)),
    ],
)
def test_simulate_array_without_faults_divides_shards_evenly(
    shards: int, tasks: int, parallel: int | None, finish: float
) -> None:
    estimate = simulated(shards, tasks, parallel=parallel)
    assert (estimate.finish, estimate.array, estimate.by_last_job) == (finish, finish, 0)
    assert (estimate.lost, estimate.taken_again, estimate.failed) == (0, 0, 0)
    assert estimate.shards.sum() == shards
    assert estimate.ideal == shards * 10 / min(tasks, parallel or tasks)
    assert estimate.idle == (estimate.shards[:-1] == 0).sum()


def test_simulate_array_starts_each_task_with_its_share() -> None:
    assert simulated(12, 4).shards.tolist() == [3, 3, 3, 3, 0]
    assert simulated(12, 4, speeds={1: 0.5}).shards.tolist() == [4, 2, 3, 3, 0]


def test_simulate_array_counts_start_and_last_job() -> None:
    estimate = simulated(8, 4, start=7.0)
    assert estimate.array == 7 + 20
    assert estimate.complete == 7 + 20
    assert estimate.finish == 7 + 20 + 7  # the last job loads, and finds nothing missing
    assert estimate.running == 4 * 27 + 7


def test_simulate_array_late_tasks_only_load() -> None:
    """Of 12 tasks, 3 at the same time, the first three do all the work; the others only load."""
    estimate = simulated(12, 12, parallel=3, start=5.0)
    assert (estimate.complete, estimate.idle) == (5 + 40, 9)
    assert estimate.array == 5 + 40 + 3 * 5


def test_simulate_array_failed_task_loses_its_current_shard() -> None:
    """Four tasks of three shards; one fails in the middle of its second: 5 s are lost."""
    estimate = simulated(12, 4, fails_at={2: 15.0})
    assert (estimate.failed, estimate.lost, estimate.taken_again, estimate.by_last_job) == (
        1,
        5,
        1,
        0,
    )
    assert estimate.shards[2] == 1
    assert estimate.finish == 40


def test_simulate_array_last_job_encodes_what_a_late_failure_left() -> None:
    estimate = simulated(12, 4, fails_at={2: 1000.0}, speeds={2: 0.001}, ahead=1.0)
    assert (estimate.shards[2], estimate.shards[:-1].sum()) == (0, 10)
    assert (estimate.by_last_job, estimate.taken_again, estimate.array, estimate.finish) == (
        2,
        2,
        1000,
        1020,
    )
    assert estimate.complete == 1020
    assert estimate.lost == 1000


def test_simulate_array_requeues_after_the_time_limit() -> None:
    """In 25 s of 10 s shards two are finished and 5 s are lost, until all 6 are done."""
    estimate = simulated(6, 1, limit=25.0, requeue=3.0)
    assert (estimate.timed_out, estimate.lost, estimate.shards[0]) == (2, 10, 6)
    assert estimate.finish == 25 + 3 + 25 + 3 + 20
    abandoned = simulated(6, 1, limit=25.0, requeues=1)
    assert (abandoned.shards.tolist(), abandoned.timed_out) == ([4, 2], 2)
    assert abandoned.finish == 50 + 20


def test_simulate_array_fault_rates() -> None:
    """Faults of a Poisson process: their number over the hours that tasks ran is the rate."""
    estimate = simulated(40_000, 200, seconds=60.0, preemptions=0.3, failures=0.02, spread=0.2)
    hours = (estimate.running) / 3600
    assert estimate.preempted == pytest.approx(0.3 * hours, abs=4 * np.sqrt(0.3 * hours))
    assert estimate.failed == pytest.approx(0.02 * hours, abs=4 * np.sqrt(0.02 * hours))
    # On average half a shard is lost at a fault; one in hand ahead costs nothing yet.
    assert estimate.lost == pytest.approx(30 * (estimate.preempted + estimate.failed), rel=0.2)
    assert estimate.shards.sum() == 40_000
    repeated = simulated(40_000, 200, seconds=60.0, preemptions=0.3, failures=0.02, spread=0.2)
    assert repeated.to_json() == estimate.to_json()
    other = simulated(40_000, 200, seconds=60.0, seed=1, preemptions=0.3, failures=0.02, spread=0.2)
    assert other.finish != estimate.finish


def test_conditions_refuse_impossible_values() -> None:
    for wrong in ({"tasks": 0}, {"tasks": 1, "parallel": 0}, {"tasks": 1, "failures": -1.0}):
        with pytest.raises(UsageError):
            Conditions(**wrong)  # type: ignore[arg-type]


# -- against real tasks -----------------------------------------------------------------------

TASKS, SHARDS, VICTIM = 4, 24, 2


class Slow(MeanColour):
    """Report each shard it begins, and hang in shard `hang_in`."""

    def __init__(self, begun: Any, hang_in: int | None) -> None:
        super().__init__()
        self.begun, self.hang_in = begun, hang_in

    def encode(self, pixels: Any, want: Any = None) -> Any:
        features = super().encode(pixels, want)
        self.begun.put(len(self.batches))
        if self.hang_in == len(self.batches):
            time.sleep(600)
        time.sleep(0.05)
        return features


def one_task(index: int, images: Images, features: Path, begun: Any, hang_in: int | None) -> None:
    """Extract with one batch per shard, so that the encoder counts shards."""
    options = ExtractOptions(shard_rows=49, batch_size=49, workers=1)
    encoder = Slow(begun, hang_in)
    extract([encoder], images, VIEWS["grid"], features, options, share=Share(index, TASKS))


@pytest.mark.parametrize("late", [False, True])
def test_simulate_array_agrees_with_real_tasks(tmp_path: Path, late: bool) -> None:
    """One of four processes is killed with -9: in its third shard, or when the others have left.

    Compare the shards that the killed task finished, those taken again and those left to the last
    job; how the other three divide the rest depends on the machine.
    """
    (tmp_path / "photos").mkdir()
    for number in range(SHARDS):
        noise_image(number).save(tmp_path / "photos" / f"{number:02d}.png")
    images = datasets.load("photos", "folder", tmp_path / "photos")
    context = multiprocessing.get_context("spawn")
    hang_in = 1 if late else 3
    queues = [context.Queue() for _ in range(TASKS)]
    tasks = [
        context.Process(
            target=one_task,
            args=(i, images, tmp_path / "f", queues[i], hang_in if i == VICTIM else None),
        )
        for i in range(TASKS)
    ]
    tasks[VICTIM].start()
    while queues[VICTIM].get(timeout=120) < hang_in:
        pass
    for i in range(TASKS):
        if i != VICTIM:
            tasks[i].start()
    if late:
        for i in range(TASKS):
            if i != VICTIM:
                tasks[i].join(120)
    store = Store.open(next((tmp_path / "f").rglob("spec.json")).parent, incomplete=True)
    in_work = [p.name[:14] for p in store.path.glob("*.partial") if p.name.startswith("shard")]
    assert tasks[VICTIM].pid is not None
    os.kill(tasks[VICTIM].pid, signal.SIGKILL)
    for task in tasks:
        task.join(120)
    left = len(store.missing())
    last = extract(
        [MeanColour()], images, VIEWS["grid"], tmp_path / "f", ExtractOptions(shard_rows=49)
    )
    assert last.reports[0].store.is_complete

    # A shard of one image has no end during which the next one could be taken.
    conditions = (
        Conditions(TASKS, ahead=0.0, speeds={VICTIM: 1e-6}, fails_at={VICTIM: 1e5})
        if late
        else Conditions(TASKS, ahead=0.0, fails_at={VICTIM: 25.0})
    )
    estimate = simulate_array([10.0] * SHARDS, conditions)
    assert estimate.shards[VICTIM] == hang_in - 1
    assert estimate.by_last_job == left
    if late:  # no other task holds a shard
        assert estimate.taken_again == len(set(in_work)) == left
    assert last.reports[0].rows_encoded == 49 * left
