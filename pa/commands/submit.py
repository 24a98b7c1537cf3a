"""`pa submit`: run a command as a job array, or as processes of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options
from pa.commands.extract import extract_options, extract_regions

if TYPE_CHECKING:
    from pa.cluster.slurm import Resources, Words
    from pa.cluster.submit import Command, CommandPlan, Submission
    from pa.workspace import Workspace

NOT_SUBMITTED = ("submit", "demo")  # commands that do not run on a cluster

resource_options = options.Group(
    "requested",
    dict,
    click.Option(["--partition"], help="Partition of the cluster."),
    click.Option(["--account"], help="Account to charge."),
    click.Option(["--qos"], help="Quality of service."),
    click.Option(["--constraint"], help="Features that a node must have."),
    click.Option(["--gpus"], type=click.IntRange(0), help="GPUs per task; `extract` uses one."),
    click.Option(["--cpus"], type=click.IntRange(1), help="CPUs per task."),
    click.Option(["--mem"], help="Memory per task, such as 32G."),
    click.Option(
        ["--time"], help="Time limit of a task, HH:MM:SS; a task that reaches it is requeued."
    ),
    click.Option(
        ["--array-parallelism"], type=click.IntRange(1), help="Maximum number of concurrent tasks."
    ),
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="COMMAND…", type=click.UNPROCESSED)
@click.option(
    "--tasks", type=click.IntRange(1), help="Number of tasks that share an extraction. Default: 1."
)
@click.option("--each", multiple=True, metavar="OPTION", help="One task per value of that option.")
@click.option("--then", multiple=True, metavar="LINE", help="Command to run after all tasks.")
@resource_options
@click.option("--local", is_flag=True, help="Run as processes of this machine, one per GPU.")
@click.option("--again", is_flag=True, help="Repeat commands that succeeded before.")
@click.option("--dry-run", is_flag=True, help="Print what would be submitted; write nothing.")
@options.as_json
@options.workspace
def submit(
    workspace: Workspace,
    words: Words,
    tasks: int | None,
    each: tuple[str, ...],
    then: tuple[str, ...],
    requested: dict[str, Any],
    local: bool,
    again: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a command as a job array on a Slurm cluster, or as processes of this machine.

    COMMAND is any command of pa, before or after the options of submit. --tasks divides an
    extraction; --each creates one task for each value of an option. A final job encodes the shards
    of failed tasks and then runs the --then commands. Run the same command again to submit only
    what remains. [cluster] in pa.toml holds the settings of the site; see docs/cluster.md.

    \b
    pa submit extract --encoder mocov3 --split val --tasks 64 --gpus 1 --time 4:00:00
    pa submit probe linear --encoder dino,mae,cae --each encoder --gpus 1
    pa submit extract --encoder dino --tasks 8 --then "index build --encoder dino" --dry-run
    pa submit extract --encoder dino --local
    """
    from pa.cluster.submit import choose_resources, parse_then, spread
    from pa.cluster.submit import submit as run

    following = parse_then(then)
    for line in following:
        parse(line)
    commands = [parse(line) for line in spread(words, each)]
    resources = choose_resources(workspace.settings.cluster, requested)
    submission = run(
        workspace,
        commands,
        then=following,
        tasks=tasks,
        resources=resources,
        local=local,
        again=again,
        dry_run=dry_run,
    )
    if as_json:
        options.emit(submission.to_json())
    else:
        console.out(submission_text(submission, None if local else resources))


def parse(words: Words) -> Command:
    """Parse a command line as click does, so that mistakes appear before the job. Run nothing."""
    from pa.cluster.submit import Command, Extraction

    if not words or words[0] in NOT_SUBMITTED:
        raise click.UsageError(f"`pa {' '.join(words[:1])}` does not run on a cluster.")
    context: click.Context = click.get_current_context().find_root()
    command: click.Command = context.command
    rest = list(words)
    while isinstance(command, click.Group):
        if not rest:
            raise click.UsageError(f"`pa {' '.join(words)}` is not complete.", context)
        name, subcommand, rest = command.resolve_command(context, rest)
        if name is None or subcommand is None:
            raise click.UsageError(f"no such command: pa {' '.join(words)}", context)
        command = subcommand
        if isinstance(command, click.Group):  # groups have no options of their own
            context = click.Context(command, parent=context, info_name=name)
        else:
            context = command.make_context(name, rest, parent=context)
    if words[0] != "extract":
        return Command(words)
    values = dict(context.params)
    if values["task_id"] is not None or values["task_count"] is not None:
        raise click.UsageError("--task-id and --task-count are set by submit: give --tasks.")
    return Command(
        words,
        Extraction(
            encoders=values["encoders"],
            regions=extract_regions.build(values),
            encoder_options=options.encoder_options.build(values),
            options=extract_options.build(values),
        ),
    )


def submission_text(submission: Submission, resources: Resources | None) -> str:
    """Return the plan, the jobs and the logs, with the resources of a cluster job."""
    from pa.cluster.slurm import command_line

    lines = [line for plan in submission.commands for line in _command(plan)]
    lines += [f"then {command_line(words)}" for words in submission.then]
    if submission.nothing_to_do:
        return "\n".join([*lines, "nothing to submit"])
    lines.append(_totals(submission, resources))
    if submission.script is not None:
        lines += ["", submission.script.rstrip()]
    if submission.job is not None:
        lines.append(f"job {submission.job}: {_tasks(submission.tasks)}")
    if submission.last is not None:
        after = f" after job {submission.job} ends" if submission.job else ""
        lines.append(f"job {submission.last}: finishes{after}")
    if submission.job or submission.last:
        jobs = ",".join(filter(None, (submission.job, submission.last)))
        lines.append(f"logs: {submission.folder}; queue: squeue -j {jobs}; progress: pa status")
    if submission.ended:
        lines.append(f"done; logs: {submission.folder}")
    return "\n".join(lines)


def _command(plan: CommandPlan) -> list[str]:
    from pa.cluster.slurm import command_line

    line = command_line(plan.command.words)
    if plan.done and not plan.stores:
        return [f"{line}\n  succeeded on {plan.done}: not submitted without --again"]
    lines = [line]
    if plan.stores:
        rows = [
            [
                f"  {store.where}",
                store.encoder,
                f"{store.shards_to_do}/{store.shards}",
                str(store.rows_to_do),
                console.size(store.bytes),
                f"{store.throughput.rows_per_second:.1f}" if store.throughput else "unknown",
            ]
            for store in plan.stores
        ]
        headers = ["  store", "encoder", "shards to do", "rows", "bytes", "rows/s per task"]
        lines += console.table(headers, rows, "  rrrr").splitlines()
    if plan.done:
        lines.append("  nothing to do: the stores are complete")
    return lines


def _totals(submission: Submission, resources: Resources | None) -> str:
    """Return the number of tasks, the expected time and the resources of each task."""
    n_bytes = sum(store.bytes for plan in submission.commands for store in plan.stores)
    parts = [_tasks(submission.tasks)]
    if n_bytes:
        parts.append(f"{console.size(n_bytes)} to write")
    if any(plan.stores and not plan.done for plan in submission.commands):
        seconds = submission.seconds
        expected = (
            f"about {console.duration(seconds)} of encoding once all tasks run"
            if seconds is not None
            else "unknown: no earlier run of this encoder and view in this workspace"
        )
        parts.append(f"expected time {expected}")
    if resources is not None:
        gpus = f", {resources.gpus} GPU" if resources.gpus else ""
        parts.append(f"limit {console.duration(60 * resources.minutes)} each{gpus}")
    return "; ".join(parts)


def _tasks(n: int) -> str:
    return f"{n} task" if n == 1 else f"{n} tasks"
