"""`pa run`: parse, call one function of `pa.tasks.run`, print."""

from __future__ import annotations

import sys
from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import emit, listed, with_config, with_json

MODES = ("plan", "dry_run", "script", "slurm")


@click.group()
def run() -> None:
    """Run a whole study, one command after the other."""


@run.command("paper")
@click.option("--encoders", callback=listed, help="Encoders, with commas; default: all set up.")
@click.option("--datasets", callback=listed, help="Datasets, with commas; default: all set up.")
@click.option(
    "--protocol",
    type=click.Choice(["paper", "released"]),
    default="paper",
    show_default=True,
    help="The paper's text, or the released code.",
)
@click.option("--limit", type=int, help="Scaled down: the first N images of every split.")
@click.option("--epochs", type=int, help="Scaled down: epochs of the probes.")
@click.option("--iterations", type=int, help="Scaled down: iterations of segmentation.")
@click.option(
    "--crops", type=int, default=10, show_default=True, help="Cached training crops of each image."
)
@click.option("--seeds", type=int, default=1, show_default=True, help="Of every classifier.")
@click.option("--keep-going", is_flag=True, help="After a failure, run what does not need it.")
@click.option("--no-figures", is_flag=True, help="Leave the figures out.")
@click.option("--plan", is_flag=True, help="Order, bytes and time; run nothing.")
@click.option("--dry-run", is_flag=True, help="The steps and which are done; load nothing.")
@click.option("--script", is_flag=True, help="Print the steps that are left as a shell script.")
@click.option("--slurm", is_flag=True, help="Submit the steps as job arrays: pa submit.")
@click.option("--tasks", type=click.IntRange(1), default=16, help="Tasks of each array.")
@with_json
@with_config
def run_paper(config: Any, as_json: bool, **given: Any) -> None:
    """Run the paper's study: extractions, indexes, scores, probes, figures, report; resumes.

    Every step is a command that you could type; what is in the cache is skipped. Encoders without
    a checkpoint, datasets without a root, figures of what is not there and steps that --limit
    leaves too few images for are left out, and named, by --plan too. Steps write their logs to
    study/ in the workspace.

    \b
    pa run paper --plan
    pa run paper --encoders dino,mae --datasets cub,coco
    pa run paper --protocol released --script > study.sh
    pa run paper --slurm --tasks 64
    """
    from pa.commands import text_run as describe_run
    from pa.study.steps import Scale
    from pa.tasks import run as work
    from pa.tasks.study import StudyRequest, read_study

    modes = [name for name in MODES if given[name]]
    if len(modes) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in modes)
        raise click.UsageError(f"{names} do not go together.")
    scaled = ("limit", "epochs", "iterations", "crops", "seeds")
    request = StudyRequest(
        encoders=given["encoders"],
        datasets=given["datasets"],
        protocol=given["protocol"],
        scale=Scale(**{name: given[name] for name in scaled}),
        keep_going=given["keep_going"],
        figures=not given["no_figures"],
    )
    if given["plan"]:
        from pa.tasks.study_plan import check_room, plan_paper

        plan = plan_paper(config, request, console.progress())
        emit(plan.to_json()) if as_json else console.out(describe_run.plan(plan))
        check_room(plan)
        return
    if modes:
        study = read_study(config, request)
        for line in describe_run.left_out(study):
            console.note(line)
        if given["script"]:
            console.out(work.script(config, study).rstrip())
        elif given["slurm"]:
            work.submit_study(config, study, given["tasks"], console.progress())
        elif as_json:
            emit(study.to_json())
        else:
            console.out(describe_run.steps(study))
        return
    ended = []
    for one in work.run_paper(config, request, console.progress()):
        ended.append(one)
        if not as_json:
            console.out(describe_run.ended(one))
    if as_json:
        emit({"steps": [one.to_json() for one in ended]})
    if any(one.state in ("failed", "skipped") for one in ended):
        sys.exit(1)
