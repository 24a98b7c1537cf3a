"""Which shards one task of a job array begins with.

N tasks fill one store. Claims keep them apart; a share only makes them begin at different places,
so that none tries what another is about to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pa.errors import UsageError

# Shards that a task finds in other hands, one after the other, before it looks anew at what is
# missing. Without that a task tries everything that others have done since it looked: of thousands
# of tasks each would try nearly every shard of the store, and a file server does little else.
PATIENCE = 256


@dataclass(frozen=True)
class Share:
    """Task `index` (from 0) of `count`.

    Raises `UsageError` where there is no such task.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"task {self.index} of {self.count}: tasks are numbered from 0 to the count less 1."
            )

    def __str__(self) -> str:
        return f"task {self.index} of {self.count}"

    def order(self, missing: Sequence[int]) -> list[int]:
        """The missing shards, the task's own share first, then what follows it, around the end.

        The shares of all tasks are contiguous, differ by at most one shard in length, and together
        are all that is missing.
        """
        start = self.start(len(missing))
        return [*missing[start:], *missing[:start]]

    def start(self, n_missing: int) -> int:
        """Where the task's own share of so many missing shards begins."""
        return n_missing * self.index // self.count


def choose_share(
    index: int | None, count: int | None, environment: Mapping[str, str] | None = None
) -> Share | None:
    """The share that was asked for, else that of the Slurm array this runs in, else None.

    In a Slurm array the task's number counts from the array's first, in its steps. Given both
    numbers, the environment is not looked at; one without the other is a `UsageError`.
    """
    if index is not None and count is not None:
        return Share(index, count)
    if index is not None or count is not None:
        raise UsageError("--task-id and --task-count belong together: give both or neither.")
    return _from_slurm(os.environ if environment is None else environment)


def _from_slurm(environment: Mapping[str, str]) -> Share | None:
    """The place in the array of `sbatch --array`; of an irregular one (3,7,8) some place."""

    def number(name: str, default: int) -> int:
        return int(environment.get(f"SLURM_ARRAY_TASK_{name}") or default)

    try:
        index, first = number("ID", -1), number("MIN", 0)
        count = number("COUNT", number("MAX", index) - first + 1)
        step = number("STEP", 1)
    except ValueError:
        return None
    if index < 0 or count < 1:
        return None
    return Share((index - first) // max(step, 1) % count, count)
