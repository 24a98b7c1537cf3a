"""What `pa datasets build`, `check` and `show` say of label maps, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pa.commands import text_datasets as describe_datasets
from pa.commands.console import table

if TYPE_CHECKING:
    from pathlib import Path

    from pa.data.datasets.segmentation.build import SplitReport
    from pa.data.datasets.segmentation.check import MaskCheck
    from pa.tasks.segmentation import ShownMasks, TreeCheck

SHOWN = 10
CLASSES_SHOWN = 12


def built(reports: Sequence[SplitReport], out: Path) -> str:
    """What was built of every split, and what is odd about it."""
    labels = reports[0].plan.labels
    lines = [
        f"{labels.dataset}: {labels.title}",
        f"  {labels.certainty}",
        f"  rule: {reports[0].plan.rule}",
    ]
    rows = [
        [
            report.split,
            f"{report.n_images:,}",
            f"{report.n_rasterized:,}",
            f"{report.present} of {len(labels)}",
            f"{len(report.all_zero):,}",
            f"{len(report.faults):,}",
        ]
        for report in reports
    ]
    heads = ["split", "images", "built now", "classes", "all-zero masks", "faulty"]
    lines.append(table(heads, rows, " rrrrr"))
    for report in reports:
        lines += _some([f"{report.split}: {name}: {text}" for name, text in report.faults])
        lines += _some([f"{report.split}: {name}: {text}" for name, text in report.notes])
    lines += [*reports[0].plan.notes, f"{out}; counts per class in report-<split>.json"]
    return "\n".join(lines)


def _some(lines: list[str]) -> list[str]:
    more = [f"… and {len(lines) - SHOWN} more in the report"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def check(checked: TreeCheck) -> str:
    """Return the images of a tree, and every class count with the expected one."""
    parts = [describe_datasets.check(checked.images)]
    return "\n\n".join([*parts, *([_masks(checked.masks)] if checked.masks else [])])


def _masks(check: MaskCheck) -> str:
    labels = check.label_set
    lines = [
        f"masks of {labels.dataset}: {labels.title}",
        f"the frozen list has {len(labels)} classes, the paper {labels.paper_classes}",
    ]
    if check.is_subset:
        lines.append(
            f"{check.n_images:,} of {check.n_release:,} images: counts of a subset of the release "
            f"can only be smaller"
        )
    rows = []
    for count in check.counts:
        differs = count.found != count.expected and not check.is_subset
        verdict = "differs" if differs else ""
        rows.append([count.what, f"{count.found:,}", str(count.expected), verdict])
    lines.append(table(["count", "found", "expected", ""], rows, " rr"))
    if check.missing:
        names = ", ".join(check.missing[:CLASSES_SHOWN])
        more = " …" if len(check.missing) > CLASSES_SHOWN else ""
        lines.append(f"{len(check.missing)} classes of the list not found here: {names}{more}")
    if check.all_zero:
        names = ", ".join(check.all_zero[:SHOWN]) + (" …" if len(check.all_zero) > SHOWN else "")
        lines.append(f"{len(check.all_zero)} masks without a labelled pixel (kept): {names}")
    return "\n".join([*lines, *_some(check.faults)])


def show(shown: ShownMasks) -> str:
    """What was drawn."""
    lines = [shown.title, f"  {shown.certainty}"]
    if shown.sheet is not None:
        lines.append(f"{len(shown.images)} images with their masks: {shown.sheet}")
    return "\n".join(lines)
