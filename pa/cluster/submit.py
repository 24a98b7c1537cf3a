"""Submit commands as a job array on a Slurm cluster, or as processes of this machine.

The remaining work is read from files: the missing shards of an extraction, and for any other
command the marker that it writes when it succeeds. Repeating a `pa submit` therefore submits only
what failed.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.cluster import slurm
from pa.cluster.slurm import Resources, Steps, Words
from pa.config import ClusterSettings
from pa.data.files import write_json
from pa.errors import PaError, UsageError
from pa.workspace import EncoderOptions, RegionSelector, Workspace

if TYPE_CHECKING:
    from pa.cluster.local import EndedCommand
    from pa.extract.plan import ExtractPlan, StorePlan
    from pa.extract.stores import ExtractOptions


@dataclass(frozen=True)
class Extraction:
    """The names and options of a `pa extract`."""

    encoders: tuple[str, ...]
    regions: RegionSelector
    encoder_options: EncoderOptions
    options: ExtractOptions


@dataclass(frozen=True)
class Command:
    """A command line of `pa`."""

    words: Words
    extraction: Extraction | None = None  # of the command `extract`

    @property
    def name(self) -> str:
        """The words before the first option, such as `index build`."""
        return " ".join(itertools.takewhile(lambda word: not word.startswith("-"), self.words))


@dataclass(frozen=True)
class CommandPlan:
    """The remaining work of a command."""

    command: Command
    tasks: int  # 0 if nothing remains
    plan: ExtractPlan | None = None  # of an extraction
    done: str | None = None  # why nothing remains

    @property
    def stores(self) -> tuple[StorePlan, ...]:
        return tuple(self.plan.stores) if self.plan else ()

    @property
    def seconds(self) -> float | None:
        """Expected seconds of all tasks, one after the other; None if unknown."""
        return self.plan.seconds if self.plan else None

    def finish(self, parallel: int) -> float | None:
        """Return the expected seconds until the last task ends; None if unknown.

        At most `parallel` tasks run at the same time. A shard is not divided: 5 shards on 2 tasks
        take the time of 3.
        """
        if self.plan is None or self.plan.seconds is None:
            return None
        # Each shard goes to the task that is free first.
        ends = [0.0] * max(1, min(self.tasks, parallel))
        for store in self.stores:
            for _ in range(store.shards_to_do):
                heapq.heapreplace(ends, ends[0] + (store.seconds or 0.0) / store.shards_to_do)
        return max(ends)


@dataclass(frozen=True)
class Submission:
    """A plan, and what was submitted or run."""

    commands: tuple[CommandPlan, ...]
    then: tuple[Words, ...]  # commands after all tasks
    folder: Path  # of the logs
    parallel: int  # maximum number of concurrent tasks
    script: str | None = None  # of a dry run
    job: str | None = None  # the array
    last: str | None = None  # the job after the array
    ended: tuple[EndedCommand, ...] = ()  # of a local run

    @property
    def tasks(self) -> int:
        return sum(plan.tasks for plan in self.commands)

    @property
    def nothing_to_do(self) -> bool:
        return all(plan.done for plan in self.commands) and not self.then

    @property
    def seconds(self) -> float | None:
        """Expected seconds until the last task ends, once all run; None if unknown.

        Of several commands: no less than their work divided among the tasks that run at the same
        time, and no less than the longest command takes alone.
        """
        remaining = [plan for plan in self.commands if not plan.done]
        work = [plan.seconds for plan in remaining]
        ends = [plan.finish(self.parallel) for plan in remaining]
        if not remaining or None in work or None in ends:
            return None
        evenly = sum(filter(None, work)) / max(1, min(self.parallel, self.tasks))
        return max([evenly, *filter(None, ends)])

    def to_json(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "commands": [
                {
                    "command": slurm.command_line(plan.command.words),
                    "tasks": plan.tasks,
                    "done": plan.done,
                    "stores": [store.to_json() for store in plan.stores],
                }
                for plan in self.commands
            ],
            "then": [slurm.command_line(words) for words in self.then],
            "folder": str(self.folder),
            "expected_seconds": self.seconds,
            "script": self.script,
            "job": self.job,
            "last_job": self.last,
        }


def submit(
    workspace: Workspace,
    commands: Sequence[Command],
    *,
    then: Sequence[Words] = (),
    tasks: int | None = None,
    resources: Resources | None = None,
    local: bool = False,
    again: bool = False,
    dry_run: bool = False,
) -> Submission:
    """Plan the commands and, unless it is a dry run, submit an array and a job that finishes.

    The last job runs every extraction once more, which encodes what failed tasks left and writes
    the manifests, and then the commands of `then`.

    Parameters
    ----------
    tasks
        Number of tasks that share an extraction. None selects 1, or with `local` one per GPU.
    local
        Run everything as processes of this machine and return when it is done.
    again
        Repeat commands that succeeded before.

    Raises
    ------
    UsageError
        If `tasks` would divide a command other than `extract`.
    PaError
        If a command of a local run failed, or Slurm refused the job.
    """
    if any(command.extraction is None for command in commands) and (tasks or 1) > 1:
        raise UsageError(
            "only `extract` can be divided into --tasks. Give --each OPTION for one task per value "
            "of an option with commas, such as --each encoder."
        )

    resources = resources or Resources()
    devices: list[str] = []
    if local:  # imported only here: torch takes seconds to load
        from pa.evaluate.devices import visible_gpus

        devices = visible_gpus()
    tasks = tasks or max(1, len(devices))
    plans = tuple(
        plan_command(workspace, command, tasks, again=again, begin=not dry_run)
        for command in commands
    )
    if extractions := [plan.plan for plan in plans if plan.plan]:
        from pa.extract.plan import check_space

        check_space(*extractions)
    # One process per GPU; without a GPU, the tasks share the cores.
    parallel = max(1, len(devices) or tasks) if local else resources.array_parallelism
    name = "-".join(commands[0].name.split())
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = workspace.config.jobs / f"{stamp}-{name}-{os.urandom(2).hex()}"
    submission = Submission(plans, tuple(then), folder, parallel)
    jobs = _jobs(workspace, submission)
    if dry_run:
        if local or not jobs:
            return submission
        return replace(submission, script=slurm.script(folder, name, resources, len(jobs)))
    if submission.nothing_to_do:
        return submission
    if local:
        return _run_here(workspace, submission, jobs, devices, name)
    last = _last_job(workspace, submission)
    array = slurm.submit(folder, name, resources, jobs) if jobs else None
    if last is not None:
        after = slurm.submit(folder, f"{name}-last", resources, [last], after=array)
        submission = replace(submission, last=after)
    submission = replace(submission, job=array)
    write_json(folder / "submission.json", submission.to_json())
    return submission


def plan_command(
    workspace: Workspace, command: Command, tasks: int, *, again: bool = False, begin: bool = False
) -> CommandPlan:
    """Return the remaining work of a command, divided into at most one task per missing shard.

    With `begin`, the stores of an extraction are created once for all tasks, which raises
    `FingerprintError` before anything is submitted if a conflicting store exists.
    """
    if command.extraction is None:
        marker = None if again else slurm.read_marker(_marker_path(workspace, command.words))
        return CommandPlan(
            command, 0 if marker else 1, done=str(marker["ended"]) if marker else None
        )
    from pa.extract.stores import open_store

    extraction = command.extraction
    # On the CPU: the machine that submits may have no GPU.
    on_cpu = replace(extraction.encoder_options, device="cpu")
    images, views = workspace.regions(extraction.regions)
    encoders = workspace.encoders(extraction.encoders, on_cpu)
    options = workspace.extract_options(extraction.options)
    if begin:
        for view in views:
            rows = view.rows(images.first(options.limit))
            for encoder in encoders:
                open_store(encoder, images, view, rows, workspace.config.features, options)
    plan = workspace.plan_extract(encoders, images, views, options)
    missing = sum(store.shards_to_do for store in plan.stores)
    done = "its stores are complete" if are_complete(plan.stores) else None
    return CommandPlan(command, min(tasks, missing), plan, done)


def are_complete(stores: Sequence[StorePlan]) -> bool:
    """Return whether every store is complete, according to its files."""
    from pa.data.store.reader import SPEC, Store

    for planned in stores:
        if not (planned.path / SPEC).exists():
            return False
        store = Store.open(planned.path, incomplete=True)
        if not store.is_complete or store.missing():
            return False
    return True


def spread(words: Words, options: Sequence[str]) -> list[Words]:
    """Return the command once for every comma-separated value of these options.

    >>> spread(("probe", "linear", "--encoder", "dino,mae"), ["encoder"])
    [('probe', 'linear', '--encoder', 'dino'), ('probe', 'linear', '--encoder', 'mae')]

    Raise `UsageError` if the command lacks the option.
    """
    commands = [words]
    for flag in dict.fromkeys("--" + option.lstrip("-") for option in options):
        at = next((i for i, word in enumerate(words) if word.partition("=")[0] == flag), None)
        if at is None or (words[at] == flag and at + 1 == len(words)):
            raise UsageError(f"--each {flag[2:]}: {slurm.command_line(words)} has no {flag}.")
        # `--encoder dino,mae` holds the values in its second word, `--encoder=dino,mae` in itself.
        at, prefix = (at + 1, "") if words[at] == flag else (at, f"{flag}=")
        values = [value.strip() for value in words[at].removeprefix(prefix).split(",")]
        commands = [
            (*single[:at], f"{prefix}{value}", *single[at + 1 :])
            for single in commands
            for value in values
        ]
    return commands


def parse_then(lines: Sequence[str]) -> tuple[Words, ...]:
    """Split the command lines of --then, which may begin with the word pa."""
    split = []
    for line in lines:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"--then {line!r}: {error}.") from None
        split.append(tuple(words[1:] if words[:1] == ["pa"] else words))
    return tuple(split)


def choose_resources(settings: ClusterSettings, requested: Mapping[str, Any]) -> Resources:
    """Return the resources of a task: the options of `pa submit`, else [cluster] in pa.toml."""
    flags = {name: value for name, value in requested.items() if value is not None}
    chosen = {**dict(settings), **flags}
    del chosen["time"]  # text in the syntax of sbatch
    if limit := flags.get("time") or settings.time:
        chosen["minutes"] = slurm.minutes(limit)
    return Resources(**chosen)


def _jobs(workspace: Workspace, submission: Submission) -> list[Steps]:
    """Return one job per task, those of one command together."""
    jobs = []
    for plan in submission.commands:
        words = ("--workspace", str(workspace.path), *plan.command.words)
        for task in range(plan.tasks):
            if plan.command.extraction is None:
                jobs.append(Steps((words,), _marker_path(workspace, plan.command.words)))
            else:
                share = ("--task-id", str(task), "--task-count", str(plan.tasks))
                jobs.append(Steps(((*words, *share),)))
    return jobs


def _last_job(workspace: Workspace, submission: Submission) -> Steps | None:
    """Return the job after all tasks: unfinished extractions once more, then `then`."""
    again = [p.command.words for p in submission.commands if p.command.extraction and not p.done]
    prefix = ("--workspace", str(workspace.path))
    commands = [(*prefix, *words) for words in [*again, *submission.then]]
    return Steps(tuple(commands)) if commands else None


def _run_here(
    workspace: Workspace,
    submission: Submission,
    jobs: Sequence[Steps],
    devices: Sequence[str],
    name: str,
) -> Submission:
    from pa.cluster.local import environments, run_all

    progress, folder = workspace.progress, submission.folder
    workers = environments(devices, min(submission.parallel, max(1, len(jobs))))
    ended = run_all(jobs, workers, folder, name, progress) if jobs else []
    failed = [command for command in ended if not command.succeeded]
    # A complete store needs no second extraction in the last job.
    plans = [
        replace(plan, done="complete") if plan.stores and are_complete(plan.stores) else plan
        for plan in submission.commands
    ]
    last = _last_job(workspace, replace(submission, commands=tuple(plans)))
    if last is not None:
        after = run_all([last], workers[:1], folder, f"{name}-last", progress)
        # The last job encodes what failed tasks of an extraction left.
        failed = [command for command in failed if "--task-id" not in command.words]
        failed += [command for command in after if not command.succeeded]
        ended += after
    if failed:
        lines = "\n".join(f"  {slurm.command_line(c.words)}    # {c.log}" for c in failed)
        raise PaError(
            f"{len(failed)} commands failed. The results of the others are kept, and the same "
            f"`pa submit` again runs these only:\n{lines}"
        )
    return replace(submission, ended=tuple(ended))


def _marker_path(workspace: Workspace, words: Words) -> Path:
    """Return the file that records the success of a command."""
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]  # 64 bits suffice
    return workspace.config.jobs / "done" / f"{digest}.json"
