"""The suite itself: pytest-xdist runs only what every worker collects under the same ids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST = 200  # characters of an id: the file, the function and a few parameters


def collect(hash_seed: int) -> list[str]:
    """The ids of all tests, as a new process collects them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qn0", "-p", "no:cacheprovider"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_every_process_collects_the_same_short_ids() -> None:
    """Neither the time of day (a collection takes seconds), nor the order of a set, nor an address
    of memory may be part of an id."""
    first, second = collect(1), collect(2)
    assert first == second
    assert len(set(first)) == len(first) > 0
    assert [name for name in first if len(name) > LONGEST or not name.isprintable()] == []
