"""What `pa submit` has to do: commands, their values spread over tasks, and what is left of each.

What is left is read from the files: `extract` from the shards that are missing, other commands
from the mark that one leaves when it has ended well.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.cluster import slurm as cluster
from pa.cluster.slurm import Resources, Words
from pa.config import Config
from pa.errors import UsageError
from pa.progress import Progress, Silent
from pa.tasks.extract import ExtractRequest
from pa.tasks.extract import plan as plan_extract

if TYPE_CHECKING:
    from pa.extract.plan import ExtractPlan, StorePlan


@dataclass(frozen=True)
class Command:
    """A command line of `pa`, without the word pa; what it asks for, where it is an extraction."""

    words: Words
    extract: ExtractRequest | None = None

    @property
    def name(self) -> str:
        """The words before the first option: `index build`."""
        return " ".join(itertools.takewhile(lambda word: not word.startswith("-"), self.words))


@dataclass(frozen=True)
class CommandPlan:
    """A command, its tasks, what an extraction has to do, and since when there is nothing to do."""

    command: Command
    tasks: int
    plan: ExtractPlan | None = None
    done: str | None = None

    @property
    def stores(self) -> tuple[StorePlan, ...]:
        return tuple(self.plan.stores) if self.plan else ()

    @property
    def seconds(self) -> float | None:
        """Expected time of all tasks together, one after the other; None where it is unknown."""
        return self.plan.seconds if self.plan else None

    def finish(self, parallel: int) -> float | None:
        """Return the expected seconds until the last task ends; None if unknown.

        At most `parallel` tasks run at the same time. A shard is not divided: 5 shards on 2 tasks
        take the time of 3.
        """
        if self.plan is None or self.plan.seconds is None:
            return None
        ends = [0.0] * max(1, min(self.tasks, parallel))  # of each task that runs
        for store in self.stores:
            for _ in range(store.shards_to_do):
                heapq.heapreplace(ends, ends[0] + (store.seconds or 0.0) / store.shards_to_do)
        return max(ends)


def spread(words: Words, options: Sequence[str]) -> list[Words]:
    """The command once for every value of these options, whose values stand with commas.

    >>> spread(("probe", "linear", "--encoder", "dino,mae"), ["encoder"])
    [('probe', 'linear', '--encoder', 'dino'), ('probe', 'linear', '--encoder', 'mae')]

    Raises `UsageError` where the command does not have the option.
    """
    found = [words]
    for option in options:
        flag = "--" + option.lstrip("-")
        found = [single for each in found for single in _spread_one(each, flag)]
    return found


def _spread_one(words: Words, flag: str) -> list[Words]:
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            before, values, after = words[: place + 1], words[place + 1], words[place + 2 :]
            return [(*before, value.strip(), *after) for value in values.split(",")]
        if word.startswith(f"{flag}="):
            values = word.partition("=")[2]
            before, after = words[:place], words[place + 1 :]
            return [(*before, f"{flag}={value.strip()}", *after) for value in values.split(",")]
    raise UsageError(f"--each {flag[2:]}: {cluster.command_line(words)} has no {flag}.")


def parse_then(lines: Sequence[str]) -> tuple[Words, ...]:
    """Command lines as typed after --then: with or without the word pa."""
    split = []
    for line in lines:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"--then {line!r}: {error}.") from None
        split.append(tuple(words[1:] if words[:1] == ["pa"] else words))
    return tuple(split)


def choose_resources(
    config: Config, *, time: str | None = None, array_parallelism: int | None = None, **given: Any
) -> Resources:
    """What a task gets: by flags, else by [cluster] of pa.toml."""
    settings = config.settings.cluster
    named = ("partition", "account", "qos", "constraint", "gpus", "cpus", "mem")
    chosen: dict[str, Any] = {
        name: getattr(settings, name) if given.get(name) is None else given[name] for name in named
    }
    if limit := time or settings.time:
        chosen["minutes"] = cluster.minutes(limit)
    if array_parallelism:
        chosen["array_parallelism"] = array_parallelism
    return Resources(
        **chosen,
        setup=tuple(settings.setup),
        python=settings.python,
        parameters=dict(settings.parameters),
        requeues=settings.requeues,
        signal_seconds=settings.signal_seconds,
    )


def plan_command(
    config: Config,
    command: Command,
    tasks: int,
    progress: Progress,
    *,
    again: bool = False,
    begin: bool = False,
) -> CommandPlan:
    """What is left to do of one command, and by how many tasks: never more than missing shards.

    With `again`, a command that ended well before is to be done too; with `begin`, the stores of
    an extraction are begun.
    """
    if command.extract is None:
        mark = None if again else cluster.read_mark(mark_of(config, command.words))
        return CommandPlan(command, 0 if mark else 1, done=str(mark["ended"]) if mark else None)
    # On the CPU: the machine that submits need not have a GPU.
    here = replace(command.extract, encoder=replace(command.extract.encoder, device="cpu"))
    if begin:
        begin_stores(config, here, Silent())
    plan = plan_extract(config, here, progress)
    missing = sum(store.shards_to_do for store in plan.stores)
    done = "its stores are complete" if are_complete(plan.stores) else None
    return CommandPlan(command, min(tasks, missing), plan, done)


def are_complete(stores: Sequence[StorePlan]) -> bool:
    """Whether stores are whole, by their files."""
    from pa.data.store.reader import Store

    for planned in stores:
        if not (planned.path / "spec.json").exists():
            return False
        store = Store.open(planned.path, incomplete=True)
        if not store.is_complete or store.missing():
            return False
    return True


def begin_stores(config: Config, request: ExtractRequest, progress: Progress) -> None:
    """Begin the stores that an extraction fills, once for all tasks; take over shards of others.

    Raises `FingerprintError` where something else is in the place, before anything is submitted.
    """
    from pa.extract.slots import open_store
    from pa.tasks.extract import prepare, run_options

    encoders, images, views = prepare(config, request, progress)
    options = run_options(config, request)
    for view in views:
        rows = view.rows(images.first(options.limit))
        for encoder in encoders:
            open_store(encoder, images, view, rows, config.features, options)


def mark_of(config: Config, words: Words) -> Path:
    """The file that says that a command ended well."""
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    return config.jobs / "done" / f"{digest}.json"
