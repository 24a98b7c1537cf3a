"""The shards that a task of a job array begins with.

N tasks fill one store. Locks keep them apart; a share only makes them begin at different shards, so
that no task tries a shard that another one is about to take.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pa.errors import UsageError

T = TypeVar("T")

# Number of consecutive locked or finished shards after which a task lists the missing shards again.
# Without this limit, each of thousands of tasks would try nearly every shard of the store.
MAX_MISSES = 256


@dataclass(frozen=True)
class Share:
    """Task `index` (from 0) of `count`. Raises `UsageError` if the index is out of range."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"{self}: tasks are numbered from 0 to {self.count - 1}.")

    def __str__(self) -> str:
        return f"task {self.index} of {self.count}"

    def order(self, missing: Sequence[T]) -> list[T]:
        """Return the missing shards, beginning with the task's share and wrapping around.

        The shares of all tasks are contiguous, differ by at most one shard in length, and together
        cover all missing shards.
        """
        start = self.start(len(missing))
        return [*missing[start:], *missing[:start]]

    def start(self, n_missing: int) -> int:
        """Return the position at which the task's share of the missing shards begins."""
        return n_missing * self.index // self.count


def choose_share(
    index: int | None, count: int | None, environment: Mapping[str, str] | None = None
) -> Share | None:
    """Return the given share, else that of the Slurm array of this process, else None.

    The position in an irregular array (`sbatch --array=3,7,8`) is approximate. Raises `UsageError`
    if only one of `index` and `count` is given. With both, the environment is not read.
    """
    if index is not None and count is not None:
        return Share(index, count)
    if index is not None or count is not None:
        raise UsageError("give both --task-id and --task-count, or neither.")
    variables: Mapping[str, str] = os.environ if environment is None else environment

    def number(name: str, default: int) -> int:
        return int(variables.get(f"SLURM_ARRAY_TASK_{name}") or default)

    try:
        index, first = number("ID", -1), number("MIN", 0)
        count = number("COUNT", number("MAX", index) - first + 1)
        step = number("STEP", 1)
    except ValueError:
        return None
    if index < 0 or count < 1:
        return None  # not inside an array
    return Share((index - first) // max(step, 1) % count, count)
