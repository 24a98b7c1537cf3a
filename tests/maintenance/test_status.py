"""`pa status`, locks and abandoned files."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from pa.commands.status import status_text
from pa.data.store.reader import Store
from pa.data.store.throughput import current_throughput, run_speed
from pa.maintenance.status import status
from pa.workspace import Workspace
from tests.support.photos import Hold, Run, encode, unfinish


def test_status_of_a_complete_store(run: Run, store: Store) -> None:
    output = json.loads(run("status", "--json").stdout)["stores"]
    assert len(output) == 1
    expected = {
        "rows": 12,
        "rows_done": 12,
        "shards": 4,
        "shards_done": 4,
        "shards_in_work": 0,
        "shards_missing": 0,
        "complete": True,
        "bad_images": 1,
        "seconds_left": None,
        "expected_end": None,
        "bytes": sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file()),
    }
    assert {name: output[0][name] for name in expected} == expected
    wall = store.runs()[0]["seconds"]["wall"]
    assert output[0]["rows_per_second"] == pytest.approx(12 / wall)
    assert output[0]["rows_per_second_from"].startswith("last run, one process on ")
    assert "complete" in run("status").stdout


def test_status_of_work_in_progress(run: Run, store: Store, hold: Hold) -> None:
    unfinish(store, 3)
    now = time.time()
    for index, ago in enumerate((30, 20, 10)):
        os.utime(store.shard_path(store.plan[index]), (now - ago, now - ago))
    other = hold(store.path / "locks" / "shard-00003.h5.lock")
    output = json.loads(run("status", "--json").stdout)["stores"][0]
    assert (output["shards_done"], output["shards_in_work"], output["shards_missing"]) == (3, 1, 0)
    assert output["bad_images"] == 1
    assert output["rows_per_second"] == pytest.approx(6 / 20)  # two shards of 3 rows in 20 s
    assert output["seconds_left"] == pytest.approx(3 / 0.3)
    assert output["expected_end"] == pytest.approx(now + 10, abs=30)
    text = run("status").stdout
    assert "3/4 shards, 1 in work" in text
    assert "in 10.0 s" in text
    other.communicate()
    output = json.loads(run("status", "--json").stdout)["stores"][0]
    assert (output["shards_in_work"], output["shards_missing"]) == (0, 1)
    assert output["seconds_left"] is None
    assert "no active writer" in run("status").stdout


def test_status_counts_bad_images_of_what_is_done(run: Run, store: Store) -> None:
    unfinish(store, 1)  # rows 3 to 5: the torn one
    assert json.loads(run("status", "--json").stdout)["stores"][0]["bad_images"] == 0


def test_status_reports_unreadable_stores(run: Run, store: Store) -> None:
    (store.path / "spec.json").write_text("{")
    outcome = run("status")
    assert outcome.exit_code == 0
    assert "spec.json is damaged" in outcome.stdout
    assert "problem" in json.loads(run("status", "--json").stdout)["stores"][0]


def test_watch_ends_when_all_is_complete(run: Run, store: Store) -> None:
    lines = run("status", "--watch").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("12/12 rows, complete, 1 bad images")
    watched = run("status", "--watch", "0.5", "--json").stdout
    assert json.loads(watched)["stores"][0]["complete"] is True


def test_watch_looks_again(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch, workspace: Path
) -> None:
    unfinish(store, 2)
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            encode(workspace)

    monkeypatch.setattr("pa.commands.console.time.sleep", sleep)
    lines = run("status", "--watch", "3").stdout.splitlines()
    assert naps[:2] == [3.0, 3.0]
    assert ["3/4 shards" in line for line in lines] == [True, True, False]


@pytest.mark.parametrize("seconds", ["nan", "inf", "0"])
def test_watch_takes_seconds_that_can_be_waited(run: Run, seconds: str) -> None:
    refused = run("status", "--watch", seconds)
    assert refused.exit_code == 2
    assert seconds in refused.stderr


def test_watch_in_a_terminal_draws_in_place(
    store: Store,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pa.commands import console

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    actual = status(Workspace(workspace))
    seen = iter([0, 1, 2])
    console.watch(
        lambda: next(seen),
        seconds=0.01,
        live=lambda n: f"{n} {status_text(actual)}",
        line=str,
        until=lambda n: n == 2,
    )
    shown = capsys.readouterr().out
    assert "photos/all/image" in shown
    assert next(seen, None) is None


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(10, 5), (20, 5), (30, 5)], 0.5),
        ([(0, 5), (1, 5), (1000, 5), (1001, 7), (1002, 7)], 7.0),  # since the pause
        ([(30, 5), (10, 100), (20, 5)], 0.5),  # in the order of time
        ([(10, 5), (20, 5)], None),
        ([(10, 5), (10, 5), (10, 5)], None),  # a clock that stands
        ([(10, 5), (20, 5), (2000, 5)], None),  # of the future: the clock went back
        ([], None),
    ],
)
def test_throughput_of_active_store(times: list[tuple[float, int]], expected: float | None) -> None:
    actual = current_throughput(times, now=1500)
    assert (actual and actual.rows_per_second) == expected


def test_torn_and_odd_lines_of_the_log(store: Store) -> None:
    log = store.path / "runs.jsonl"
    good = log.read_text()
    log.write_text(good + '{"rows": 3\n' + "[1]\n" + '{"rows": 0, "seconds": {"wall": 1}}')
    assert [run_speed(run) is None for run in store.runs()] == [False, True]
    log.unlink()
    assert store.runs() == []
