"""The suite itself: pytest-xdist runs only what every worker collects under the same ids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST = 200  # characters of an id: the file, the function and a few parameters


def collect(hash_seed: int) -> list[str]:
    """The ids of all tests, as a new process collects them."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_ids_are_short_and_equal_in_every_process() -> None:
    """Neither the time of day (a collection takes seconds), nor the order of a set, nor an address
    of memory may be part of an id."""
    first, second = collect(1), collect(2)
    assert first == second
    assert len(set(first)) == len(first) > 0
    assert [name for name in first if len(name) > LONGEST or not name.isprintable()] == []


SUITE = """
import os, pytest
class TestOne:
    @pytest.mark.parametrize("name", ["a b", "c::d"])
    def test_browser(self, name):
        os.environ.get("BROWSER") or pytest.skip("no browser")
def test_gpu():
    pytest.skip("needs a GPU")
def test_plain():
    pass
"""


@pytest.mark.parametrize("provided", [True, False])
def test_integration_runs_what_a_new_user_skips(tmp_path: Path, provided: bool) -> None:
    """The second run takes the tests that the first one skipped, and fails if they skip again."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(SUITE)

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    pytest_run = (
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        "-o",
        "junit_family=xunit1",
    )
    skipped = str(REPOSITORY / ".ci" / "skipped.py")
    assert run(*pytest_run, "--junitxml=first.xml").returncode == 0
    ids = run(skipped, "list", "first.xml").stdout
    assert len(ids.splitlines()) == 3
    (tmp_path / "ids.txt").write_text(ids)
    second = run(
        *pytest_run, "--junitxml=second.xml", "@ids.txt", BROWSER="yes" if provided else ""
    )
    assert second.returncode == 0, second.stdout
    checked = run(skipped, "check", "first.xml", "second.xml")
    assert (checked.returncode == 0) == provided, checked.stdout + checked.stderr
    assert run(skipped, "check", "first.xml", "second.xml", "no browser").returncode == 0
