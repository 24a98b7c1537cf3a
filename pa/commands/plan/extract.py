"""`pa plan extract`: rows, files, bytes and time of an extraction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.extract import extract_options, extract_regions
from pa.commands.plan.work import time_text, verdict

if TYPE_CHECKING:
    from pa.extract.plan import ExtractPlan
    from pa.extract.stores import ExtractOptions
    from pa.workspace import EncoderOptions, RegionSelector, Workspace


@click.command()
@options.encoders
@extract_regions
@options.encoder_options
@extract_options
@options.as_json
@options.workspace
def extract(
    workspace: Workspace,
    encoders: tuple[str, ...],
    regions: RegionSelector,
    encoder_options: EncoderOptions,
    extract_options: ExtractOptions,
    as_json: bool,
) -> None:
    """Report the rows, files, bytes and time of an extraction, and the free disk space.

    Encoders are loaded, no image is decoded and nothing is written. The time is that of one process
    at the throughput of the longest recorded run of the same encoder and view in this workspace;
    without such a run it is unknown. Exit code 1 means that the disk is too small.

    \b
    pa plan extract --encoder dino --dataset cub --split all
    """
    from pa.extract.plan import check_space

    images, views = workspace.regions(regions)
    loaded = workspace.encoders(encoders, encoder_options)
    plan = workspace.plan_extract(loaded, images, views, extract_options)
    if as_json:
        options.emit(plan.to_json())
    else:
        console.out(_text(plan))
    check_space(plan)


def _text(plan: ExtractPlan) -> str:
    heads = ["store", "encoder", "rows", "to do", "shards", "files", "to write", "time"]
    rows = [
        [
            entry.where,
            entry.encoder,
            str(entry.rows),
            str(entry.rows_to_do),
            f"{entry.shards_to_do}/{entry.shards}",
            str(entry.files),
            console.size(entry.bytes),
            time_text(entry.seconds),
        ]
        for entry in plan.stores
    ]
    lines = [console.table(heads, rows, "  rrrrr")]
    for entry in plan.stores:
        name = f"  {entry.where} · {entry.encoder}"
        if entry.throughput is not None:
            speed = entry.throughput.rows_per_second
            lines.append(f"{name}: {speed:.1f} rows/s, {entry.throughput.source}")
        if reused := entry.rows_adopted + entry.rows_copied:
            saved = entry.seconds_saved
            saving = "" if saved is None else f", saving {console.duration(saved)} of encoding"
            lines.append(
                f"{name}: {reused} rows are available in other stores "
                f"({entry.rows_adopted} linked, {entry.rows_copied} copied){saving}"
            )
    total = "unknown (no earlier run)" if plan.seconds is None else console.duration(plan.seconds)
    lines.append(f"total {console.size(plan.bytes)}, time with one process: {total}")
    free = f"free on the disk of {plan.folder}: {console.size(plan.free)}"
    lines.append(f"{free}, {verdict(plan.fits)}")
    return "\n".join(lines)
