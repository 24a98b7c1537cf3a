"""`pa submit`: commands as a job array on a Slurm cluster, or as processes of this machine.

What is left to do is read from the files (`submit_plan`), so the same `pa submit` again submits
what failed, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.cluster import slurm as cluster
from pa.cluster.slurm import Resources, Steps, Words
from pa.config import Config
from pa.data.files import write_json
from pa.errors import PaError, UsageError
from pa.progress import Progress
from pa.tasks.submit_plan import Command, CommandPlan, are_complete, mark_of, plan_command

if TYPE_CHECKING:
    from pa.cluster.local import Ended


@dataclass(frozen=True)
class SubmitRequest:
    """What `pa submit` was asked. Only extractions can be divided into several `tasks`.

    `then` are commands that follow when all tasks have ended. `tasks` None means one, or with
    `local` one per GPU. `again` repeats commands that ended well before.
    """

    commands: tuple[Command, ...]
    then: tuple[Words, ...] = ()
    tasks: int | None = None
    resources: Resources = field(default_factory=Resources)
    local: bool = False
    again: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Submission:
    """The plan, and what was made of it: `job` the array, `last` the job after it."""

    commands: tuple[CommandPlan, ...]
    then: tuple[Words, ...]
    folder: Path
    parallel: int
    script: str | None = None
    job: str | None = None
    last: str | None = None
    ended: tuple[Ended, ...] = ()

    @property
    def tasks(self) -> int:
        return sum(plan.tasks for plan in self.commands)

    @property
    def nothing_to_do(self) -> bool:
        return all(plan.done for plan in self.commands) and not self.then

    @property
    def seconds(self) -> float | None:
        """Expected time until the last task ends, once all run; None where it is unknown.

        Of several commands no less than their work divided among the tasks that run at once, and
        no less than the longest takes alone.
        """
        to_do = [plan for plan in self.commands if not plan.done]
        works = [plan.seconds for plan in to_do]
        ends = [plan.finish(self.parallel) for plan in to_do]
        if not to_do or None in works or None in ends:
            return None
        evenly = sum(filter(None, works)) / max(1, min(self.parallel, self.tasks))
        return max([evenly, *filter(None, ends)])

    def to_json(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "commands": [
                {
                    "command": cluster.command_line(plan.command.words),
                    "tasks": plan.tasks,
                    "done": plan.done,
                    "stores": [store.to_json() for store in plan.stores],
                }
                for plan in self.commands
            ],
            "then": [cluster.command_line(words) for words in self.then],
            "folder": str(self.folder),
            "expected_seconds": self.seconds,
            "script": self.script,
            "job": self.job,
            "last_job": self.last,
        }


def submit(config: Config, request: SubmitRequest, progress: Progress) -> Submission:
    """Plan, and unless it is a dry run, submit: an array of tasks, then a job that finishes.

    The last job runs every extraction once more, which makes what failed tasks left, writes the
    manifests, and then the commands of `then`. With `local`, all of it runs here, until it is done.
    Raises `PaError` where a command of a local run failed.
    """
    if any(plan.extract is None for plan in request.commands) and (request.tasks or 1) > 1:
        raise UsageError(
            "only `extract` can be divided into --tasks. Give --each OPTION for one task per value "
            "of an option with commas, such as --each encoder."
        )
    devices = _devices() if request.local else []
    tasks = request.tasks or max(1, len(devices))
    plans = tuple(
        plan_command(config, c, tasks, progress, again=request.again, begin=not request.dry_run)
        for c in request.commands
    )
    from pa.extract.plan import check_space

    check_space(*(plan.plan for plan in plans if plan.plan))
    parallel = (
        max(1, len(devices) or tasks) if request.local else request.resources.array_parallelism
    )
    name = "-".join(request.commands[0].name.split())
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = config.jobs / f"{stamp}-{name}-{os.urandom(2).hex()}"
    result = Submission(plans, request.then, folder, parallel)
    jobs = _jobs(config, result)
    if request.dry_run:
        if request.local or not jobs:
            return result
        return replace(result, script=cluster.script(folder, name, request.resources, len(jobs)))
    if result.nothing_to_do:
        return result
    if request.local:
        return _run_here(config, result, jobs, devices, parallel, name, progress)
    return _send(config, result, jobs, request.resources, name)


def _jobs(config: Config, result: Submission) -> list[Steps]:
    """One task after the other, all of one command together."""
    where = ("--workspace", str(config.workspace))
    jobs = []
    for plan in result.commands:
        words = (*where, *plan.command.words)
        for task in range(plan.tasks):
            if plan.command.extract is None:
                jobs.append(Steps((words,), (mark_of(config, plan.command.words),)))
            else:
                share = ("--task-id", str(task), "--task-count", str(plan.tasks))
                jobs.append(Steps(((*words, *share),)))
    return jobs


def _last(config: Config, result: Submission) -> Steps | None:
    """What follows all tasks: every unfinished extraction once more, then what was asked for."""
    again = [p.command.words for p in result.commands if p.command.extract and not p.done]
    commands = [("--workspace", str(config.workspace), *words) for words in [*again, *result.then]]
    return Steps(tuple(commands)) if commands else None


def _send(
    config: Config, result: Submission, jobs: Sequence[Steps], resources: Resources, name: str
) -> Submission:
    last = _last(config, result)
    number = cluster.submit(result.folder, name, resources, jobs) if jobs else None
    if last is not None:
        after = cluster.submit(result.folder, f"{name}-last", resources, [last], after=number)
        result = replace(result, last=after)
    result = replace(result, job=number)
    write_json(result.folder / "submission.json", result.to_json())
    return result


def _run_here(
    config: Config,
    result: Submission,
    jobs: Sequence[Steps],
    devices: Sequence[str],
    parallel: int,
    name: str,
    progress: Progress,
) -> Submission:
    from pa.cluster.local import environments, run_all

    places = environments(devices, min(parallel, max(1, len(jobs))))
    ended = run_all(jobs, places, result.folder, name, progress) if jobs else []
    failed = [end for end in ended if not end.well]
    last = _last(config, _after(result))
    if last is not None:
        after = run_all([last], places[:1], result.folder, f"{name}-last", progress)
        # The last one makes what failed tasks of an extraction left.
        failed = [end for end in failed if "--task-id" not in end.words]
        failed += [end for end in after if not end.well]
        ended += after
    if failed:
        lines = "\n".join(f"  {cluster.command_line(e.words)}    # {e.log}" for e in failed)
        raise PaError(
            f"{len(failed)} commands failed; the others' results are kept, and the same "
            f"`pa submit` again runs these only:\n{lines}"
        )
    return replace(result, ended=tuple(ended))


def _after(result: Submission) -> Submission:
    """The same, with the commands done whose stores the tasks have completed."""
    plans = [
        replace(plan, done="complete") if plan.stores and are_complete(plan.stores) else plan
        for plan in result.commands
    ]
    return replace(result, commands=tuple(plans))


def _devices() -> list[str]:
    from pa.extract.devices import visible_gpus

    return visible_gpus()
