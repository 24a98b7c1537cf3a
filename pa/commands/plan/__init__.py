"""`pa plan`: the options of a command, and what it would cost in place of doing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pa.commands.evaluate.retrieval import retrieval as retrieval_command
from pa.commands.extract import extract as extract_command
from pa.commands.index.build import build as build_command
from pa.commands.old_options import with_config
from pa.commands.plan.evaluate_retrieval import retrieval
from pa.commands.plan.extract import extract
from pa.commands.plan.index_build import build
from pa.commands.plan.work import same_options
from pa.commands.probe import ATTENTIVE_RECIPE, RECIPE, changed, probe_attentive, probe_linear
from pa.commands.probe_segmentation import segmentation
from pa.errors import UsageError

SOURCES = """

Bytes, files and memory are computed from shapes. The time is that of the newest recorded run of the
same command in the workspace, scaled to this one; without such a run it is unknown. Exit code 1
means that the disk or the memory is too small."""


@click.group()
def plan() -> None:
    """Report what a long command would write and how long it would take.

    Each takes the same options as the command and writes nothing. Exit code 1 means that the disk
    or the memory is too small.
    """


plan.add_command(same_options(extract, extract_command))


def _planning(
    command: click.Command, name: str, title: str, work: Callable[..., Any]
) -> click.Command:
    """A command with the options of another, that prints the items of `work(config, given)`."""

    @with_config
    def run(config: Any, as_json: bool, **given: Any) -> None:
        from pa.commands.plan.work import report

        items, place = work(config, given)
        report(items, place, as_json)

    params = list(command.params)
    return click.Command(name, callback=run, params=params, help=f"{title}{SOURCES}")


def _probe_linear(config: Any, given: dict[str, Any]) -> Any:
    from pa.commands.plan.probe_linear import plan_linear
    from pa.probe.recipes import permitted_differences
    from pa.probe.selection import split_rows
    from pa.tasks.probe import ProbeRequest, linear_run

    request = ProbeRequest(changes=changed(given, RECIPE), **given)
    if request.shots:
        raise UsageError(
            "--shots trains on a few rows of each class and cannot be planned: omit it here, or "
            "run it."
        )
    run = linear_run(config, request)
    split = split_rows(run.train, run.test, run.options, permitted_differences(run.recipe.protocol))
    item = plan_linear(split, run.representation, run.recipe, run.extras, config.results)
    return [item], config.results


def _probe_attentive(config: Any, given: dict[str, Any]) -> Any:
    from pa.commands.plan.probe_attentive import plan_attentive
    from pa.probe.recipes import permitted_differences
    from pa.probe.selection import split_rows
    from pa.tasks.probe_attentive import AttentiveRequest, attentive_run

    request = AttentiveRequest(changes=changed(given, ATTENTIVE_RECIPE), **given)
    run = attentive_run(config, request)
    split = split_rows(run.train, run.test, run.options, permitted_differences(run.recipe.protocol))
    return [plan_attentive(split, run.recipe, run.extras, config.results)], config.results


def _segmentation() -> click.Command:
    """`pa probe segmentation --plan` by the name that the other plans have."""
    callback = segmentation.callback
    assert callback is not None

    def run(**given: Any) -> None:
        callback(only_plan=True, **given)

    return click.Command(
        "segmentation",
        callback=run,
        params=[option for option in segmentation.params if option.name != "only_plan"],
        help="""Cost of a segmentation head, cached and on the fly, on a CPU and on a GPU.

        The same as `pa probe segmentation --plan`.""",
    )


@plan.group("index")
def plan_index() -> None:
    """Cost of building indexes."""


@plan.group("probe")
def plan_probe() -> None:
    """Cost of training a probe."""


@plan.group("evaluate")
def plan_evaluate() -> None:
    """Cost of scoring stored features."""


plan_index.add_command(same_options(build, build_command))
plan_probe.add_command(
    _planning(probe_linear, "linear", "Cost of linear classifiers.", _probe_linear)
)
plan_probe.add_command(
    _planning(probe_attentive, "attentive", "Cost of attentive classifiers.", _probe_attentive)
)
plan_probe.add_command(_segmentation())
plan_evaluate.add_command(same_options(retrieval, retrieval_command))
