"""`pa datasets check`: compare a dataset with its official release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options
from pa.errors import EXIT_PARTLY_DONE, MissingError

if TYPE_CHECKING:
    from pa.data.datasets.check import MaskCheck, SplitCheck
    from pa.data.views.part_rows import PartCounts
    from pa.workspace import Workspace

LINES_SHOWN = 10  # files in the terminal; --json lists all
CLASSES_SHOWN = 12  # missing classes in the terminal


@click.command()
@click.argument("name")
@click.option("--root", type=options.PATH, help="Root folder of the dataset.")
@click.option("--split", help="Check this split only.")
@click.option("--boxes", type=options.PATH, help="Table of boxes for view parts, CSV or Parquet.")
@click.option("--quick", is_flag=True, help="Count only; open no images and no masks.")
@options.as_json
@options.workspace
def check(
    workspace: Workspace,
    name: str,
    root: Path | None,
    split: str | None,
    boxes: Path | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Compare a dataset with its official release: counts, missing and unreadable files.

    Exit code 3 means that the dataset is missing; the expected layout is shown. Exit code 6 means
    that some files cannot be read.

    \b
    pa datasets check cub --root CUB_200_2011
    pa datasets check ade20k-part --root ade20k-part
    """
    from pa.data.datasets import DATASETS
    from pa.data.datasets.check import check_masks, check_split
    from pa.data.datasets.segmentation import tree
    from pa.data.datasets.segmentation.labels import LABEL_SETS
    from pa.data.datasets.segmentation.releases import RELEASES

    kind, root = workspace.dataset_kind(name), workspace.dataset_root(name, root)
    names: list[str | None] = [split]
    if split is None and root.is_dir():
        names = [*DATASETS[kind].splits(root)] or [None]  # None: loading raises, with the layout
    try:
        loaded = [workspace.images(name, split=s, root=root, boxes=boxes) for s in names]
    except MissingError as error:
        layout = RELEASES[kind].layout if kind in RELEASES else ""
        if not layout or DATASETS[kind].layout not in str(error):
            raise
        raise MissingError(f"{error}\nBuild it from the official release:\n{layout}") from None
    folder = loaded[0].root
    splits = [check_split(i, DATASETS[kind], not quick, workspace.progress) for i in loaded]
    is_whole = all(each.is_whole for each in splits)
    text = [f"{name} ({kind}) in {folder}", _splits_text(splits)]
    fields = {"dataset": name, "kind": kind, "root": str(folder)}
    content: dict[str, Any] = {**fields, "splits": [each.to_json() for each in splits]}
    if kind in LABEL_SETS:
        content = {**fields, "root": str(root), "images": content, "classes": []}
        if not quick:
            masks = check_masks(tree.label_set(kind, folder), loaded, workspace.progress)
            is_whole = is_whole and not masks.faults
            content["classes"] = [masks.to_json()]
            text += ["", _masks_text(masks)]
    if as_json:
        options.emit(content)
    else:
        console.out("\n".join(text))
    if not is_whole:
        sys.exit(EXIT_PARTLY_DONE)


def _splits_text(splits: list[SplitCheck]) -> str:
    """Return found and expected counts per split, and the files that cannot be read."""
    rows = [
        [
            split.split,
            f"{split.images:,}",
            f"{split.expected.images:,}" if split.expected else "-",
            str(split.classes or "-"),
            str((split.expected and split.expected.classes) or "-"),
            str(len(split.missing)),
            "not checked" if split.turned is None else str(len(split.unreadable)),
        ]
        for split in splits
    ]
    heads = ["split", "images", "official", "classes", "official", "missing", "unreadable"]
    lines = [console.table(heads, rows, " rrrrrr")]
    for split in splits:
        lines += ["", *text] if (text := _split_text(split)) else []
    return "\n".join(lines)


def _split_text(split: SplitCheck) -> list[str]:
    lines = []
    if split.expected and split.images != split.expected.images:
        lines.append(f"{split.images:,} of {split.expected.images:,} images: not the whole release")
    lines += split.remarks
    if split.turned:
        lines.append(f"{split.turned} images are rotated by their EXIF: boxes are read upright")
    files = [f"missing: {path}" for path in split.missing]
    files += [f"unreadable: {path}: {reason}" for path, reason in split.unreadable]
    files += [f"wrong size: {path}: {reason}" for path, reason in split.odd_sizes]
    lines += first_lines(files)
    text = [f"{split.split}: {line}" for line in lines]
    for protocol, reason in split.no_parts.items():
        text.append(f"{split.split}, view parts, protocol {protocol}: no row: {reason}")
    for protocol, counts in split.parts.items():
        text += [f"{split.split}, view parts, protocol {protocol}:", parts_text(counts)]
    return text


def first_lines(lines: list[str]) -> list[str]:
    """Return the first lines, and the number of the others."""
    n_more = len(lines) - LINES_SHOWN
    return [*lines[:LINES_SHOWN], *([f"… and {n_more} more; --json lists all"] * (n_more > 0))]


def parts_text(counts: PartCounts) -> str:
    """Return the kept and skipped patches of each part, by reason."""
    reasons = list(counts.skipped)
    rows = [
        [name, *(str(c[name]) for c in (counts.kept, *(counts.skipped[r] for r in reasons)))]
        for name in counts.kept
    ]
    if len(rows) > 1:
        sums = [counts.rows, *(sum(counts.skipped[r].values()) for r in reasons)]
        rows.append(["all", *map(str, sums)])
    table = console.table(["part", "patches", *reasons], rows, " " + "r" * (len(reasons) + 1))
    n_without = counts.images - counts.images_kept
    return (
        f"{table}\n{counts.images_kept:,} of {counts.images:,} images have a patch, "
        f"{n_without:,} none"
    )


def _masks_text(check: MaskCheck) -> str:
    """Return every class count with the expected one, and the faulty masks."""
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
        differs = count.counted != count.expected and not check.is_subset
        rows.append(
            [count.what, f"{count.counted:,}", str(count.expected), "differs" if differs else ""]
        )
    lines.append(console.table(["count", "found", "expected", ""], rows, " rr"))
    if check.missing:
        names = ", ".join(check.missing[:CLASSES_SHOWN])
        more = " …" if len(check.missing) > CLASSES_SHOWN else ""
        lines.append(f"{len(check.missing)} classes of the list not found here: {names}{more}")
    if check.all_zero:
        names = ", ".join(check.all_zero[:LINES_SHOWN])
        more = " …" if len(check.all_zero) > LINES_SHOWN else ""
        lines.append(f"{len(check.all_zero)} masks without a labelled pixel (kept): {names}{more}")
    return "\n".join([*lines, *first_lines(check.faults)])
