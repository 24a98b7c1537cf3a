"""`pa submit`: parse, call one function of `pa.tasks.submit`, print."""

from __future__ import annotations

from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import emit, encoder_choice, with_config, with_json

HERE = ("submit", "demo")  # commands that are not for a cluster


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="COMMAND…", type=click.UNPROCESSED)
@click.option("--tasks", type=click.IntRange(1), help="Tasks that share an extraction; default 1.")
@click.option("--each", multiple=True, metavar="OPTION", help="A task per value of that option.")
@click.option("--then", multiple=True, metavar="LINE", help="Command to run when all is done.")
@click.option("--partition", help="Partition of the cluster.")
@click.option("--account", help="Account that pays.")
@click.option("--qos", help="Quality of service.")
@click.option("--constraint", help="Features that nodes must have.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs of a task; `extract` uses one.")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of a task.")
@click.option("--mem", help="Memory of a task, such as 32G.")
@click.option("--time", help="Time limit of a task, HH:MM:SS; it is requeued when that is over.")
@click.option("--array-parallelism", type=click.IntRange(1), help="Tasks that run at once.")
@click.option("--local", is_flag=True, help="Processes of this machine instead, one per GPU.")
@click.option("--again", is_flag=True, help="Also commands that have ended well before.")
@click.option("--dry-run", is_flag=True, help="Say what would be submitted; write nothing.")
@with_json
@with_config
@click.pass_context
def submit(
    context: click.Context, /, config: Any, words: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Run a command as a job array on a Slurm cluster, or as processes of this machine.

    COMMAND is any command of pa, as you would type it, before or after the options of submit.
    An extraction is divided among --tasks; --each makes one task of every value of an option. A
    job after the array makes what failed tasks left, and then what --then says. The same command
    again submits only what is still to do. Site settings: [cluster] in pa.toml, docs/cluster.md.

    \b
    pa submit extract --encoder mocov3 --split val --tasks 64 --gpus 1 --time 4:00:00
    pa submit probe linear --encoder dino,mae,cae --each encoder --gpus 1
    pa submit extract --encoder dino --tasks 8 --then "index build --encoder dino" --dry-run
    pa submit extract --encoder dino --local
    """
    from pa.commands import text_submit as describe_submit
    from pa.tasks.submit import SubmitRequest
    from pa.tasks.submit import submit as work
    from pa.tasks.submit_plan import choose_resources, parse_then, spread

    tasks, each, then = given.pop("tasks"), given.pop("each"), given.pop("then")
    modes = {name: given.pop(name) for name in ("local", "again", "dry_run")}
    following = parse_then(then)
    for line in following:
        _parse(context, line)
    request = SubmitRequest(
        commands=tuple(_parse(context, line) for line in spread(words, each)),
        then=following,
        tasks=tasks,
        resources=choose_resources(config, **given),
        **modes,
    )
    result = work(config, request, console.progress())
    if as_json:
        emit(result.to_json())
    else:
        console.out(describe_submit.submission(result, request))


def _parse(context: click.Context, words: tuple[str, ...]) -> Any:
    """Read a command line as the command line itself would, so that mistakes show before the job.

    Nothing is run. Returns a `Command`.
    """
    from pa.tasks.extract import ExtractRequest
    from pa.tasks.submit_plan import Command

    if not words or words[0] in HERE:
        raise click.UsageError(f"`pa {' '.join(words[:1])}` is not for a cluster: name a command.")
    inner: click.Context = context.find_root()
    command: click.Command = inner.command
    rest = list(words)
    while isinstance(command, click.Group):
        if not rest:
            raise click.UsageError(f"`pa {' '.join(words)}` is not complete.", inner)
        name, found, rest = command.resolve_command(inner, rest)
        if name is None or found is None:
            raise click.UsageError(f"no such command: pa {' '.join(words)}", inner)
        command = found
        if isinstance(command, click.Group):  # groups have no options of their own
            inner = click.Context(command, parent=inner, info_name=name)
        else:
            inner = command.make_context(name, rest, parent=inner)
    if words[0] != "extract":
        return Command(words)
    given = {k: v for k, v in inner.params.items() if k not in ("as_json", "own_workspace")}
    if given["task_id"] is not None or given["task_count"] is not None:
        raise click.UsageError("--task-id and --task-count are set by submit: give --tasks.")
    return Command(words, ExtractRequest(encoder=encoder_choice(given), **given))
