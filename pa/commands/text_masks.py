"""What `pa datasets build`, `check` and `show` say of label maps, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pa.commands import text_datasets as describe_datasets
from pa.commands.console import table

if TYPE_CHECKING:
    from pathlib import Path

    from pa.data.datasets.segmentation.ade20k_index import Count
    from pa.data.datasets.segmentation.build import SplitReport
    from pa.data.datasets.segmentation.class_check import ClassCheck
    from pa.tasks.segmentation import MaskCheck, ShownMasks

SHOWN = 10
CLASSES_SHOWN = 12


def built(reports: Sequence[SplitReport], out: Path) -> str:
    """What was built of every split, and what is odd about it."""
    labels = reports[0].plan.labels
    lines = [
        f"{labels.label}: {labels.title}",
        f"  {labels.certainty}",
        f"  rule: {reports[0].plan.rule}",
    ]
    rows = [
        [
            report.split,
            f"{report.n_images:,}",
            f"{report.painted:,}",
            f"{report.present} of {len(labels)}",
            f"{len(report.all_zero):,}",
            f"{len(report.faults):,}",
        ]
        for report in reports
    ]
    heads = ["split", "images", "made now", "classes", "all-zero masks", "faulty"]
    lines.append(table(heads, rows, " rrrrr"))
    for report in reports:
        lines += _some([f"{report.split}: {name}: {text}" for name, text in report.faults])
        lines += _some([f"{report.split}: {name}: {text}" for name, text in report.notes])
    lines += [*reports[0].plan.notes, f"{out}; counts per class in report-<split>.json"]
    return "\n".join(lines)


def _some(lines: list[str]) -> list[str]:
    more = [f"… and {len(lines) - SHOWN} more in the report"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def check(found: MaskCheck) -> str:
    """The images of a tree, and every class count beside what was expected."""
    parts = [describe_datasets.check(found.images)] if found.images else []
    parts += [_classes(one) for one in found.classes]
    return "\n\n".join(parts)


def _classes(found: ClassCheck) -> str:
    lines = [found.title]
    if found.n_classes is not None:
        lines.append(
            f"the frozen list has {found.n_classes} classes, the paper {found.paper_classes}"
        )
    if found.is_part:
        lines.append(
            f"{found.images:,} of {found.of_images:,} images are here: counts of a part of the "
            f"release can only be smaller"
        )
    rows = [
        [one.what, f"{one.found:,}", one.expected, _verdict(found, one)] for one in found.counts
    ]
    lines.append(table(["count", "found", "expected", ""], rows, " rr"))
    if found.missing:
        names = ", ".join(found.missing[:CLASSES_SHOWN])
        more = " …" if len(found.missing) > CLASSES_SHOWN else ""
        lines.append(f"{len(found.missing)} classes of the list not found here: {names}{more}")
    if found.all_zero:
        names = ", ".join(found.all_zero[:SHOWN]) + (" …" if len(found.all_zero) > SHOWN else "")
        lines.append(f"{len(found.all_zero)} masks without a labelled pixel (kept): {names}")
    return "\n".join([*lines, *found.notes, *_some(found.differences), *_some(found.faults)])


def _verdict(found: ClassCheck, count: Count) -> str:
    """Of a part of a release, more than the whole holds is a difference, less is none."""
    if count.agrees or (found.is_part and not count.exceeds):
        return ""
    return "differs"


def show(shown: ShownMasks) -> str:
    """What was drawn."""
    lines = [shown.title, f"  {shown.certainty}"]
    if shown.sheet is not None:
        lines.append(f"{len(shown.images)} images with their masks: {shown.sheet}")
    return "\n".join(lines)
