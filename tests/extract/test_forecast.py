"""The simulated job array, against arithmetic and against real tasks that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pa.data import datasets
from pa.data.schema import Images
from pa.data.store.store import Store
from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract.forecast import Conditions, Forecast, forecast
from pa.extract.run import extract
from pa.extract.share import Share
from pa.extract.slots import Options
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour


def of(shards: int, tasks: int, seconds: float = 10.0, seed: int = 0, **given: Any) -> Forecast:
    return forecast([seconds] * shards, Conditions(tasks, **given), seed)


@pytest.mark.parametrize(
    ("shards", "tasks", "parallel", "finish"),
    [
        *((12, 4, None, 30), (13, 4, None, 40), (3, 5, None, 10), (12, 1, None, 120)),
        *((12, 12, 3, 40), (12, 4, 8, 30)),
    ],
)
def test_without_faults_shards_are_dealt_evenly(
    shards: int, tasks: int, parallel: int | None, finish: float
) -> None:
    found = of(shards, tasks, parallel=parallel)
    assert (found.finish, found.array, found.by_last_job) == (finish, finish, 0)
    assert (found.lost, found.taken_again, found.failed) == (0, 0, 0)
    assert found.shards.sum() == shards
    assert found.ideal == shards * 10 / min(tasks, parallel or tasks)
    assert found.idle == (found.shards[:-1] == 0).sum()


def test_every_task_begins_with_its_share() -> None:
    assert of(12, 4).shards.tolist() == [3, 3, 3, 3, 0]
    assert of(12, 4, speeds={1: 0.5}).shards.tolist() == [4, 2, 3, 3, 0]


def test_starting_and_the_last_job_take_their_time() -> None:
    found = of(8, 4, start=7.0)
    assert found.array == 7 + 20
    assert found.complete == 7 + 20
    assert found.finish == 7 + 20 + 7  # the last job loads, and finds nothing missing
    assert found.running == 4 * 27 + 7


def test_tasks_that_begin_late_only_load() -> None:
    """12 tasks, 3 at once: the first three do all the work, the others load and find none."""
    found = of(12, 12, parallel=3, start=5.0)
    assert (found.complete, found.idle) == (5 + 40, 9)
    assert found.array == 5 + 40 + 3 * 5


def test_a_failed_task_loses_what_it_had_in_hand() -> None:
    """Four tasks of three shards; one fails in the middle of its second: 5 s are lost."""
    found = of(12, 4, fails_at={2: 15.0})
    assert (found.failed, found.lost, found.taken_again, found.by_last_job) == (1, 5, 1, 0)
    assert found.shards[2] == 1
    assert found.finish == 40


def test_what_fails_at_the_end_is_left_to_the_last_job() -> None:
    found = of(12, 4, fails_at={2: 1000.0}, speeds={2: 0.001}, ahead=1.0)
    assert (found.shards[2], found.shards[:-1].sum()) == (0, 10)
    assert (found.by_last_job, found.taken_again, found.array, found.finish) == (2, 2, 1000, 1020)
    assert found.complete == 1020
    assert found.lost == 1000


def test_one_task_that_is_requeued_by_its_time_limit() -> None:
    """In 25 s of 10 s shards two are finished and 5 s are lost, until all 6 are done."""
    found = of(6, 1, limit=25.0, requeue=3.0)
    assert (found.timed_out, found.lost, found.shards[0]) == (2, 10, 6)
    assert found.finish == 25 + 3 + 25 + 3 + 20
    given_up = of(6, 1, limit=25.0, requeues=1)
    assert (given_up.shards.tolist(), given_up.timed_out) == ([4, 2], 2)
    assert given_up.finish == 50 + 20


def test_rates_are_those_asked_for() -> None:
    """Faults of a Poisson process: their number over the hours that tasks ran is the rate."""
    found = of(40_000, 200, seconds=60.0, preemptions=0.3, failures=0.02, spread=0.2)
    hours = (found.running) / 3600
    assert found.preempted == pytest.approx(0.3 * hours, abs=4 * np.sqrt(0.3 * hours))
    assert found.failed == pytest.approx(0.02 * hours, abs=4 * np.sqrt(0.02 * hours))
    # On average half a shard is lost at a fault; one in hand ahead costs nothing yet.
    assert found.lost == pytest.approx(30 * (found.preempted + found.failed), rel=0.2)
    assert found.shards.sum() == 40_000
    again = of(40_000, 200, seconds=60.0, preemptions=0.3, failures=0.02, spread=0.2)
    assert again.to_json() == found.to_json()
    other = of(40_000, 200, seconds=60.0, seed=1, preemptions=0.3, failures=0.02, spread=0.2)
    assert other.finish != found.finish


def test_conditions_that_cannot_be() -> None:
    for wrong in ({"tasks": 0}, {"tasks": 1, "parallel": 0}, {"tasks": 1, "failures": -1.0}):
        with pytest.raises(UsageError):
            Conditions(**wrong)  # type: ignore[arg-type]


# -- against real tasks -----------------------------------------------------------------------

TASKS, SHARDS, VICTIM = 4, 24, 2


class Slow(MeanColour):
    """Says which of its shards it begins, and never ends the shard it is told to hang in."""

    def __init__(self, told: Any, hang_in: int | None) -> None:
        super().__init__()
        self.told, self.hang_in = told, hang_in

    def encode(self, pixels: Any, want: Any = None) -> Any:
        features = super().encode(pixels, want)
        self.told.put(len(self.batches))
        if self.hang_in == len(self.batches):
            time.sleep(600)
        time.sleep(0.05)
        return features


def one_task(index: int, images: Images, features: Path, told: Any, hang_in: int | None) -> None:
    """A batch is a shard, so that the encoder knows how many it has begun."""
    options = Options(shard_rows=49, batch_size=49, workers=1)
    encoder = Slow(told, hang_in)
    extract([encoder], images, VIEWS["grid"], features, options, share=Share(index, TASKS))


@pytest.mark.parametrize("late", [False, True])
def test_simulated_and_real_tasks_agree(tmp_path: Path, late: bool) -> None:
    """One of four processes is killed with -9: in its third shard, or when the others have left.

    Compared are the shards that the killed one had finished, those that were taken again, and
    those left to the last job; how the other three divide the rest depends on the machine.
    """
    (tmp_path / "photos").mkdir()
    for number in range(SHARDS):
        noise_image(number).save(tmp_path / "photos" / f"{number:02d}.png")
    images = datasets.load("photos", "folder", tmp_path / "photos")
    context = multiprocessing.get_context("spawn")
    hang_in = 1 if late else 3
    tellers = [context.Queue() for _ in range(TASKS)]
    tasks = [
        context.Process(
            target=one_task,
            args=(i, images, tmp_path / "f", tellers[i], hang_in if i == VICTIM else None),
        )
        for i in range(TASKS)
    ]
    tasks[VICTIM].start()
    while tellers[VICTIM].get(timeout=120) < hang_in:
        pass
    for i in range(TASKS):
        if i != VICTIM:
            tasks[i].start()
    if late:
        for i in range(TASKS):
            if i != VICTIM:
                tasks[i].join(120)
    store = Store.open(next((tmp_path / "f").rglob("spec.json")).parent, incomplete=True)
    in_hand = [p.name[:14] for p in store.path.glob("*.partial") if p.name.startswith("shard")]
    assert tasks[VICTIM].pid is not None
    os.kill(tasks[VICTIM].pid, signal.SIGKILL)
    for task in tasks:
        task.join(120)
    left = len(store.missing())
    last = extract([MeanColour()], images, VIEWS["grid"], tmp_path / "f", Options(shard_rows=49))
    assert last.reports[0].store.is_complete

    # A shard of one image has no end during which the next one could be taken.
    conditions = (
        Conditions(TASKS, ahead=0.0, speeds={VICTIM: 1e-6}, fails_at={VICTIM: 1e5})
        if late
        else Conditions(TASKS, ahead=0.0, fails_at={VICTIM: 25.0})
    )
    simulated = forecast([10.0] * SHARDS, conditions)
    assert simulated.shards[VICTIM] == hang_in - 1
    assert simulated.by_last_job == left
    if late:  # nobody else has one in hand
        assert simulated.taken_again == len(set(in_hand)) == left
    assert last.reports[0].rows_encoded == 49 * left
