"""`pa encoders`: parse, call one function of `pa.tasks.encoders`, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import (
    PATH,
    choosing_encoder,
    emit,
    encoder_choice,
    with_config,
    with_json,
)


@click.group()
def encoders() -> None:
    """The encoders: what there is, checks of checkpoint files, downloads."""


@encoders.command("list")
@with_json
@with_config
def encoders_list(config: Any, as_json: bool) -> None:
    """List the encoders, their files, and which of these this workspace has."""
    from pa.commands import text as describe
    from pa.tasks.encoders import list_encoders

    found = list_encoders(config)
    if as_json:
        emit({"encoders": [entry.to_json() for entry in found]})
    else:
        console.out(describe.encoders(found))


@encoders.command("check")
@click.argument("name")
@choosing_encoder
@click.option("--precision", type=PATH, help="Compare bf16 and fp16 with fp32 on this folder.")
@click.option("--limit", type=click.IntRange(3), default=64, help="Images of --precision.")
@with_json
@with_config
def encoders_check(
    config: Any, as_json: bool, name: str, precision: Path | None, limit: int, **given: Any
) -> None:
    """Load a checkpoint strictly and report where every key went. Exit code 4 = it does not fit.

    \b
    pa encoders check mocov3 --checkpoint vit-b-300ep.pth.tar
    pa encoders check deit --precision photos/
    """
    from pa.commands import text as describe
    from pa.errors import CheckpointError
    from pa.tasks.encoders import check_encoder, compare_precisions

    choice = encoder_choice(given)
    report = check_encoder(config, name, choice)
    compared = []
    if report.ok and precision is not None:
        compared = compare_precisions(config, name, choice, precision, limit)
    if as_json:
        emit({**report.to_json(), "precision": [vars(entry) for entry in compared]})
    else:
        console.out(describe.load_report(report))
        if compared:
            console.out("\n" + describe.agreements(compared))
    if not report.ok:
        sys.exit(CheckpointError.exit_code)


@encoders.command("fetch")
@click.argument("name")
@click.option("--file", help="Which of the encoder's files; default the one that holds most.")
@with_json
@with_config
def encoders_fetch(config: Any, as_json: bool, name: str, file: str | None) -> None:
    """Download an encoder's official checkpoint into the workspace; resumes.

    Without a network it says which file to put where.
    """
    from pa.tasks.encoders import fetch_encoder

    path = fetch_encoder(config, name, file, console.progress())
    if as_json:
        emit({"encoder": name, "checkpoint": str(path)})
    else:
        console.out(f"{path}\ncheck it with: pa encoders check {name}")
