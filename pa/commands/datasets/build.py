"""`pa datasets build`: make images and index PNGs from an official release."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.errors import EXIT_PARTLY_DONE, StorageError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from pa.data.datasets.segmentation.build import SplitReport
    from pa.workspace import Workspace

LINES_SHOWN = 10  # faults and notes in the terminal; the reports list all


@click.command()
@click.argument("name")
@click.option("--root", type=options.PATH, required=True, help="Folder of the official release.")
@click.option("--out", type=options.PATH, required=True, help="Folder of the new dataset.")
@click.option(
    "--rule",
    help="For pascal-part the order of drawing: file (default) or area. For ade20k-object the "
    "source of the masks: challenge (default) or seg.",
)
@click.option("--images", type=options.PATH, help="Folder of VOC2010, if it is not in --root.")
@click.option("--split", help="Build this split only.")
@click.option("--copy", is_flag=True, help="Copy the images instead of linking them.")
@click.option("--workers", type=click.IntRange(1), help="Number of threads.")
@options.as_json
@options.workspace
def build(
    workspace: Workspace,
    name: str,
    root: Path,
    out: Path,
    rule: str | None,
    images: Path | None,
    split: str | None,
    copy: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write images and index PNGs (0 = ignored, k = class k) from an official release.

    NAME is ade20k, ade20k-object, ade20k-part, pascal-object, pascal-part or lip. Run the same
    command again to resume it. Exit code 6 means that some annotations are faulty: they are listed,
    and all others are done.

    \b
    pa datasets build ade20k-part --root ADE20K_2021_17_01 --out ade20k-part
    pa datasets build pascal-part --root pascal_part --images VOCdevkit --out pascal-part
    """
    from pa.data.datasets.segmentation import build as builder
    from pa.data.datasets.segmentation.releases import plan_build

    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"--out {out} is the release itself, or inside it ({root}): the new dataset would be "
            f"read as a part of the release. Choose a folder outside of it."
        )
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"--out {out}: {existing} is a file. Choose a folder.")
    if not os.access(existing, os.W_OK):
        raise StorageError(
            f"--out {out}: {existing} is read-only. Give write permission, or choose another "
            f"folder."
        )
    plan = plan_build(workspace.dataset_kind(name), root, images=images, rule=rule)
    if split is not None:
        if split not in plan.splits:
            raise UnknownNameError(f"split of {root}", split, plan.splits)
        plan = replace(plan, splits={split: plan.splits[split]})
    reports = builder.build(plan, out, copy=copy, workers=workers or 0, progress=workspace.progress)
    if as_json:
        options.emit({"out": str(out), "splits": [report.to_json() for report in reports]})
    else:
        console.out(_text(reports, out))
    if any(report.faults for report in reports):
        sys.exit(EXIT_PARTLY_DONE)


def _text(reports: list[SplitReport], out: Path) -> str:
    plan = reports[0].plan
    rows = [
        [
            report.split,
            f"{report.n_images:,}",
            f"{report.n_rasterized:,}",
            f"{report.present} of {len(plan.labels)}",
            f"{len(report.all_zero):,}",
            f"{len(report.faults):,}",
        ]
        for report in reports
    ]
    heads = ["split", "images", "built now", "classes", "all-zero masks", "faulty"]
    lines = [
        f"{plan.labels.dataset}: {plan.labels.title}",
        f"  {plan.labels.certainty}",
        f"  rule: {plan.rule}",
        console.table(heads, rows, " rrrrr"),
    ]
    for report in reports:
        for entries in (report.faults, report.notes):
            lines += [f"{report.split}: {name}: {text}" for name, text in entries[:LINES_SHOWN]]
            if len(entries) > LINES_SHOWN:
                lines.append(f"… and {len(entries) - LINES_SHOWN} more in the report")
    return "\n".join([*lines, *plan.notes, f"{out}; counts per class in report-<split>.json"])
