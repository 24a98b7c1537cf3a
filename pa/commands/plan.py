"""`pa plan`: the options of a command, and what it would cost in place of doing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pa.commands import console
from pa.commands.evaluate import evaluate_retrieval
from pa.commands.index import index_build
from pa.commands.options import emit, encoder_choice, with_config
from pa.commands.probe import ATTENTIVE_RECIPE, RECIPE, changed, probe_attentive, probe_linear
from pa.commands.probe_segmentation import segmentation

MEASURED = """

Bytes, files, memory and time; the time from a short run of the command's own code on this machine.
Exit code 1 says that the disk or the memory is too small."""


@click.group()
def plan() -> None:
    """Say what a long command will cost before it begins.

    Each takes the very options of the command, and writes nothing. Exit code 1 says that the disk
    or the memory is too small.
    """


def plan_extract(extract: click.Command) -> click.Command:
    """`pa plan extract` takes the same options as `pa extract`."""
    return click.Command(
        "extract",
        callback=_plan_extract,
        params=list(extract.params),
        help="""Bytes, files, rows and time of an extraction, and the room on the disk.

        Takes every option of `pa extract`. Encoders are loaded, no image is decoded, nothing is
        written. The time is that of one process at the throughput of the longest recorded run of
        the same encoder and view in this workspace; without such a run it is unknown. Exit code 1
        means that the disk is too small.
        """,
    )


@with_config
def _plan_extract(config: Any, as_json: bool, **given: Any) -> None:
    from pa.commands import text_plan as describe_plan
    from pa.tasks.extract import ExtractRequest
    from pa.tasks.plan import check_space
    from pa.tasks.plan import plan_extract as work

    made = work(config, ExtractRequest(encoder=encoder_choice(given), **given), console.progress())
    if as_json:
        emit(made.to_json())
    else:
        console.out(describe_plan.extraction(made))
    check_space(made)


def _planning(
    command: click.Command, name: str, title: str, work: Callable[..., Any]
) -> click.Command:
    """A command with the options of another, that prints `work(config, given)`, a `WorkPlan`."""

    @with_config
    def run(config: Any, as_json: bool, **given: Any) -> None:
        from pa.commands import text_plan as describe_plan
        from pa.tasks.plan_work import check_room

        made = work(config, given)
        if as_json:
            emit(made.to_json())
        else:
            console.out(describe_plan.work(made))
        check_room(made)

    params = list(command.params)
    return click.Command(name, callback=run, params=params, help=f"{title}{MEASURED}")


def _index_build(config: Any, given: dict[str, Any]) -> Any:
    from pa.tasks.index import IndexRequest
    from pa.tasks.plan_work import plan_indexes

    return plan_indexes(config, IndexRequest(**given), console.progress())


def _probe_linear(config: Any, given: dict[str, Any]) -> Any:
    from pa.tasks.plan_work import plan_linear
    from pa.tasks.probe import ProbeRequest

    request = ProbeRequest(changes=changed(given, RECIPE), **given)
    return plan_linear(config, request, console.progress())


def _probe_attentive(config: Any, given: dict[str, Any]) -> Any:
    from pa.tasks.plan_work import plan_attentive
    from pa.tasks.probe_attentive import AttentiveRequest

    request = AttentiveRequest(changes=changed(given, ATTENTIVE_RECIPE), **given)
    return plan_attentive(config, request, console.progress())


def _evaluate_retrieval(config: Any, given: dict[str, Any]) -> Any:
    from pa.tasks.evaluate import EvaluateRequest
    from pa.tasks.plan_work import plan_retrieval

    return plan_retrieval(config, EvaluateRequest(**given), console.progress())


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


plan_index.add_command(
    _planning(index_build, "build", "Cost of the indexes of one store or of several.", _index_build)
)
plan_probe.add_command(
    _planning(probe_linear, "linear", "Cost of linear classifiers.", _probe_linear)
)
plan_probe.add_command(
    _planning(probe_attentive, "attentive", "Cost of attentive classifiers.", _probe_attentive)
)
plan_probe.add_command(_segmentation())
plan_evaluate.add_command(
    _planning(
        evaluate_retrieval, "retrieval", "Cost of part retrieval scores.", _evaluate_retrieval
    )
)
