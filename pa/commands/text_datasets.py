"""What `pa datasets` found, as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pa.commands.console import table

if TYPE_CHECKING:
    from pa.data.datasets.check import SplitCheck
    from pa.data.views.part_rows import PartCounts
    from pa.tasks.datasets import DatasetCheck, Shown, ShownRegions

FILES_SHOWN = 10


def check(found: DatasetCheck) -> str:
    """Found against expected counts per split, and what cannot be read."""
    rows = []
    for split in found.splits:
        expected = split.expected
        classes = str(split.classes) if split.classes else "-"
        rows.append(
            [
                split.split,
                f"{split.images:,}",
                f"{expected.images:,}" if expected else "-",
                classes,
                str(expected.classes) if expected and expected.classes else "-",
                str(len(split.missing)),
                "not looked" if split.turned is None else str(len(split.unreadable)),
            ]
        )
    heads = ["split", "images", "official", "classes", "official", "missing", "unreadable"]
    lines = [f"{found.dataset} ({found.kind}) in {found.root}", table(heads, rows, " rrrrrr")]
    for split in found.splits:
        lines += ["", *told] if (told := _split(split)) else []
    return "\n".join(lines)


def _split(split: SplitCheck) -> list[str]:
    lines = []
    if split.expected and split.images != split.expected.images:
        lines.append(f"{split.images:,} of {split.expected.images:,} images: not the whole release")
    lines += split.remarks
    if split.turned:
        lines.append(f"{split.turned} images are rotated by their EXIF: boxes are read upright")
    files = [f"missing: {path}" for path in split.missing]
    files += [f"unreadable: {path}: {reason}" for path, reason in split.unreadable]
    files += odd_sizes(split.odd_sizes)
    lines += files[:FILES_SHOWN]
    if len(files) > FILES_SHOWN:
        lines.append(f"… and {len(files) - FILES_SHOWN} more; --json lists all")
    text = [f"{split.split}: {line}" for line in lines]
    for protocol, why in split.no_parts.items():
        text.append(f"{split.split}, view parts, protocol {protocol}: no row: {why}")
    for protocol, counts in split.parts.items():
        text += [f"{split.split}, view parts, protocol {protocol}:", parts(counts)]
    return text


def odd_sizes(found: list[tuple[str, str]]) -> list[str]:
    """The images whose boxes are cut at wrong places."""
    return [f"wrong size: {path}: {reason}" for path, reason in found]


def parts(counts: PartCounts) -> str:
    """Kept and left out per part, with the reasons."""
    reasons = list(counts.skipped)
    rows = [
        [name, *(str(c[name]) for c in (counts.kept, *(counts.skipped[r] for r in reasons)))]
        for name in counts.kept
    ]
    if len(rows) > 1:
        sums = [counts.rows, *(sum(counts.skipped[r].values()) for r in reasons)]
        rows.append(["all", *map(str, sums)])
    heads = ["part", "patches", *reasons]
    without = counts.images - counts.images_kept
    return (
        table(heads, rows, " " + "r" * (len(heads) - 1))
        + f"\n{counts.images_kept:,} of {counts.images:,} images have a patch, {without:,} none"
    )


def regions(shown: ShownRegions) -> str:
    """How many regions a view has, and where the sheet of them lies."""
    lines = [f"{shown.title}: {shown.rows:,} regions of {shown.images:,} images"]
    return "\n".join([*lines, f"sheet: {shown.sheet}"] if shown.sheet else lines)


def show(shown: Shown) -> str:
    """The counts behind a contact sheet, and where it lies."""
    lines = [shown.title, parts(shown.counts)]
    lines += (odd := odd_sizes(shown.odd_sizes))[:FILES_SHOWN]
    if len(odd) > FILES_SHOWN:
        lines.append(f"… and {len(odd) - FILES_SHOWN} more; --json lists all")
    if shown.sheet is not None:
        lines.append(f"sheet: {shown.sheet}")
    return "\n".join(lines)
