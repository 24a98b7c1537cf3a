"""The command line of `pa submit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Run


def test_options_precede_or_follow_the_command(pa: Run, workspace: Path) -> None:
    plans = [
        pa("submit", "--json", *words).json
        for words in (
            ("extract", "--shard-rows", 49, "--tasks", 4, "--dry-run", "--time", "10"),
            ("--tasks", 4, "--time", "10", "--dry-run", "--", "extract", "--shard-rows", 49),
        )
    ]
    assert plans[0]["commands"] == plans[1]["commands"]
    assert plans[0]["tasks"] == 4
    assert "#SBATCH --time=10" in plans[0]["script"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("extract", "--encodr", "dino"), 2, "No such option"),
        (("extract", "--limit", "none"), 2, "not a valid integer"),
        (("index",), 2, "not complete"),
        (("nothing",), 2, "No such command 'nothing'"),
        (("submit", "extract"), 2, "does not run on a cluster"),
        (("extract", "--task-id", "1", "--task-count", "2"), 2, "give --tasks"),
        (("extract", "--then", "index buld"), 2, "No such command 'buld'"),
        (("extract", "--then", "index 'build"), 2, "No closing quotation"),
        (("extract", "--time", "soon"), 2, "time limit 'soon'"),
        (("index", "build", "--each", "encoder"), 2, "has no --encoder"),
    ],
)
def test_mistakes_are_reported_before_submission(
    pa: Run, workspace: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    outcome = pa("submit", *words, "--dry-run")
    assert outcome.code == code
    assert message in outcome.err


def test_extract_accepts_task_options(pa: Run, workspace: Path) -> None:
    outcome = pa("extract", "--shard-rows", 49, "--task-id", 1, "--task-count", 3)
    assert outcome.code == 0
    assert "task 1 of 3" in outcome.err
    assert pa("extract", "--task-id", 1).code == 2
    assert pa("extract", "--task-id", 3, "--task-count", 3).code == 2
