"""`pa plan`: the bytes, files, memory and time of long commands, before they begin."""

from __future__ import annotations

import click

from pa.commands.evaluate.retrieval import retrieval as retrieval_command
from pa.commands.extract import extract as extract_command
from pa.commands.index.build import build as build_command
from pa.commands.plan.evaluate_retrieval import retrieval
from pa.commands.plan.extract import extract
from pa.commands.plan.index_build import build
from pa.commands.plan.probe_attentive import attentive
from pa.commands.plan.probe_linear import linear
from pa.commands.plan.probe_segmentation import plan_segmentation
from pa.commands.plan.work import same_options
from pa.commands.probe.attentive import attentive as attentive_command
from pa.commands.probe.linear import linear as linear_command
from pa.commands.probe.segmentation import segmentation as segmentation_command


@click.group()
def plan() -> None:
    """Report what a long command would write and how long it would take.

    Each takes the same options as the command and writes nothing. Exit code 1 means that the disk
    or the memory is too small.
    """


plan.add_command(same_options(extract, extract_command))


@plan.group("index")
def plan_index() -> None:
    """Report the cost of building indexes."""


@plan.group("probe")
def plan_probe() -> None:
    """Report the cost of training a probe."""


@plan.group("evaluate")
def plan_evaluate() -> None:
    """Report the cost of scoring stored features."""


plan_index.add_command(same_options(build, build_command))
plan_probe.add_command(same_options(linear, linear_command))
plan_probe.add_command(same_options(attentive, attentive_command))
plan_probe.add_command(same_options(plan_segmentation, segmentation_command))
plan_evaluate.add_command(same_options(retrieval, retrieval_command))
