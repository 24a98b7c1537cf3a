"""Shares of an extraction among the tasks of a job array."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from pa.commands.extract import result_text
from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract.run import RunResult, extract
from pa.extract.share import Share, choose_share
from pa.extract.stores import ExtractOptions
from tests.support.mean_colour import MeanColour
from tests.support.stores import same_files

Tree = Callable[..., Path]
SMALL = ExtractOptions(shard_rows=50, batch_size=32)


@given(st.integers(0, 200), st.integers(1, 40))
def test_shares_are_contiguous_even_and_complete(n: int, count: int) -> None:
    missing = [10 + 3 * i for i in range(n)]
    starts = [Share(index, count).order(missing) for index in range(count)]
    assert all(sorted(order) == missing for order in starts)
    firsts = [missing.index(order[0]) for order in starts] if n else []
    lengths = [b - a for a, b in zip(firsts, [*firsts[1:], n], strict=True)] if n else []
    assert sum(lengths) == n
    assert not lengths or max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"ID": "3", "COUNT": "8", "MIN": "0", "MAX": "7", "STEP": "1"}, Share(3, 8)),
        ({"ID": "3", "COUNT": "3", "MIN": "1", "MAX": "3", "STEP": "1"}, Share(2, 3)),
        ({"ID": "9", "COUNT": "3", "MIN": "1", "MAX": "9", "STEP": "4"}, Share(2, 3)),
        ({"ID": "5", "MIN": "2", "MAX": "6"}, Share(3, 5)),
        ({"ID": "7", "COUNT": "3", "MIN": "3", "MAX": "8", "STEP": "1"}, Share(1, 3)),
        ({"ID": "none"}, None),
    ],
)
def test_choose_share_reads_slurm_variables(
    variables: dict[str, str], expected: Share | None
) -> None:
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in variables.items()}
    assert choose_share(None, None, environment) == expected
    assert choose_share(0, 1, environment) == Share(0, 1)


def test_share_refuses_impossible_numbers() -> None:
    with pytest.raises(UsageError, match="task 4 of 4"):
        Share(4, 4)
    with pytest.raises(UsageError, match="--task-count"):
        choose_share(1, None, {})


def shards_left(result: RunResult) -> int:
    return sum(len(report.store.missing()) for report in result.reports)


def test_extract_starts_with_its_share_and_continues_with_the_rest(
    image_tree: Tree, tmp_path: Path
) -> None:
    images = datasets.load("photos", "folder", image_tree())
    written: list[str] = []
    original = Store.shard_key

    def spy(self: Store, shard) -> str:  # type: ignore[no-untyped-def]
        written.append(shard.name)
        return original(self, shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "shard_key", spy)
        result = extract([MeanColour()], images, VIEWS["grid"], tmp_path, SMALL, share=Share(1, 3))
    # The manifest asks for the keys of all shards once more.
    assert [int(name[6:11]) for name in written[:12]] == [*range(4, 12), *range(4)]
    assert shards_left(result) == 0
    assert result.reports[0].store.is_complete


def test_extract_leaves_locked_shards_to_other_tasks(image_tree: Tree, tmp_path: Path) -> None:
    images = datasets.load("photos", "folder", image_tree())
    whole = extract([MeanColour()], images, VIEWS["grid"], tmp_path / "whole", SMALL)
    done = extract([MeanColour()], images, VIEWS["grid"], tmp_path / "f", SMALL)
    store = done.reports[0].store
    (store.path / "manifest.json").unlink()
    for shard in store.plan[3:6]:
        store.shard_path(shard).unlink()
    (store.path / "locks").mkdir()
    ended: list[RunResult] = []

    def task() -> None:
        features = tmp_path / "f"
        run = extract([MeanColour()], images, VIEWS["grid"], features, SMALL, share=Share(0, 2))
        ended.append(run)

    with FileLock(store.path / "locks" / f"{store.plan[4].name}.lock"):  # held by another task
        thread = threading.Thread(target=task)
        thread.start()
        thread.join(60)
    assert [(shards_left(run), run.reports[0].rows_encoded, run.bad) for run in ended] == [
        (1, 98, [])
    ]
    assert ended[0].to_json()["stores"][0]["complete"] is False
    assert not store.is_complete
    assert "1 of 12 shards are locked by other tasks" in result_text(ended[0])
    task()  # the job after the array
    assert shards_left(ended[1]) == 0
    assert same_files(whole.reports[0].store.path, ended[1].reports[0].store.path)
