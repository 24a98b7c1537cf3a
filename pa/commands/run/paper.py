"""`pa run paper`: run the paper's study as a sequence of commands."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.study.plan import Study, StudyOptions, StudyPlan
    from pa.study.run import StepResult
    from pa.study.steps import Scale
    from pa.workspace import Workspace


scale_options = options.Group(
    "scale",
    "pa.study.steps:Scale",
    click.Option(["--limit"], type=int, help="Use the first N images of every split only."),
    click.Option(["--epochs"], type=int, help="Number of epochs of the probes."),
    click.Option(["--iterations"], type=int, help="Number of iterations of segmentation."),
    click.Option(
        ["--crops"],
        type=int,
        default=10,
        show_default=True,
        help="Number of cached training crops per image, for segmentation.",
    ),
    click.Option(
        ["--seeds"],
        type=int,
        default=1,
        show_default=True,
        help="Number of seeds of every classifier.",
    ),
)


study_options = options.Group(
    "study_options",
    "pa.study.plan:StudyOptions",
    click.Option(
        ["--encoders"],
        callback=options.listed,
        help="Encoders, separated by commas. Default: all that are configured.",
    ),
    click.Option(
        ["--datasets"],
        callback=options.listed,
        help="Datasets, separated by commas. Default: all that are configured.",
    ),
    click.Option(
        ["--protocol"],
        type=click.Choice(["paper", "released"]),
        default="paper",
        show_default=True,
        help="Rules of the paper's text, or of the released code.",
    ),
)


@dataclass(frozen=True)
class Action:
    """What to do with the study: at most one of the flags; without any, it runs."""

    plan: bool
    dry_run: bool
    script: bool
    slurm: bool
    tasks: int

    def __post_init__(self) -> None:
        flags = [
            f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is True
        ]
        if len(flags) > 1:
            raise click.UsageError(f"{' and '.join(flags)} cannot be combined.")


action_options = options.Group(
    "action",
    Action,
    click.Option(["--plan"], is_flag=True, help="Print the order, bytes and time; run nothing."),
    click.Option(
        ["--dry-run"], is_flag=True, help="Print the steps and which are done; run nothing."
    ),
    click.Option(["--script"], is_flag=True, help="Print the remaining steps as a shell script."),
    click.Option(["--slurm"], is_flag=True, help="Submit the remaining steps with `pa submit`."),
    click.Option(
        ["--tasks"],
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="Number of tasks of each job array of --slurm.",
    ),
)


@click.command()
@study_options
@scale_options
@click.option("--keep-going", is_flag=True, help="After a failure, run what does not need it.")
@click.option("--no-figures", is_flag=True, help="Skip the figures.")
@action_options
@options.as_json
@options.workspace
def paper(
    workspace: Workspace,
    study_options: StudyOptions,
    scale: Scale,
    action: Action,
    keep_going: bool,
    no_figures: bool,
    as_json: bool,
) -> None:
    """Run the paper's study: extractions, indexes, scores, probes, figures and the report.

    Every step is a command of pa; the same command again resumes. Encoders without a checkpoint,
    datasets without a root, figures without results and steps that --limit leaves too few images
    for are skipped and listed. The messages of each step are in study/ of the workspace.

    \b
    pa run paper --plan
    pa run paper --encoders dino,mae --datasets cub,coco
    pa run paper --protocol released --script > study.sh
    pa run paper --slurm --tasks 64
    """
    from pa.study.plan import plan_extractions, plan_study
    from pa.study.run import run_study, submit_study
    from pa.study.script import study_script

    study = plan_study(workspace, replace(study_options, scale=scale, figures=not no_figures))
    if action.plan:
        forecast = plan_extractions(workspace, study)
        options.emit(forecast.to_json()) if as_json else console.out(plan_text(forecast))
        forecast.check_room()
        return
    if action.dry_run or action.script or action.slurm:
        for item in study.skipped:
            console.note(item.message)
        if action.script:
            console.out(study_script(workspace, study).rstrip())
        elif action.slurm:
            submit_study(workspace, study, action.tasks)
        elif as_json:
            options.emit(study.to_json())
        else:
            console.out(study_text(study))
        return
    results = []
    for result in run_study(workspace, study, keep_going=keep_going):
        results.append(result)
        if not as_json:
            console.out(step_text(result))
    if as_json:
        options.emit({"steps": [result.to_json() for result in results]})
    if any(result.state in ("failed", "skipped") for result in results):
        sys.exit(1)


def study_text(study: Study) -> str:
    """Return every step in order, and whether it is done."""
    rows = [
        [str(number), "done" if step.name in study.done else "", step.command]
        for number, step in enumerate(study.steps, 1)
    ]
    return "\n".join([console.table(["step", "state", "command"], rows, "r"), _count(study)])


def plan_text(plan: StudyPlan) -> str:
    """Return the steps in order, with the size and the time of the extractions."""
    rows = []
    for number, step in enumerate(plan.study.steps, 1):
        extraction = plan.plans.get(step.name)
        cells = ["", "", ""]
        if extraction is not None:
            n_rows = sum(store.rows_to_do for store in extraction.stores)
            cells = [f"{n_rows:,}", console.size(extraction.bytes), _time(extraction.seconds)]
        state = "done" if step.name in plan.study.done else ""
        rows.append([str(number), state, step.name, *cells])
    free = "" if plan.free is None else f"; free on the disk: {console.size(plan.free)}"
    return "\n".join(
        [
            *(item.message for item in plan.study.skipped),
            console.table(["step", "state", "what", "rows", "bytes", "time"], rows, "r  rrr"),
            _count(plan.study),
            f"features: {console.size(plan.bytes)}, {_time(plan.seconds)} in one process at the "
            f"throughput of earlier runs{free}",
            "probes and scores: the first run of each kind shows its time",
        ]
    )


def step_text(result: StepResult) -> str:
    """Return one line on how a step ended."""
    time = f" in {console.duration(result.seconds)}" if result.seconds else ""
    why = f": {result.why}" if result.why else ""
    return f"{result.state:<8} {result.step.name}{time}{why}"


def _count(study: Study) -> str:
    n_steps, n_done = len(study.steps), len(study.done)
    return f"{n_steps} steps, {n_done} done, {len(study.remaining)} to do"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else console.duration(seconds)
