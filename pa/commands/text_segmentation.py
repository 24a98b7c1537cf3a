"""Segmentation results as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.probe.segmentation.plan import Plan
    from pa.probe.segmentation.record import SegmentationResult
    from pa.probe.segmentation.run import SegmentationRun

CLASSES_SHOWN = 5
HOUR = 3600


def results(found: Sequence[tuple[SegmentationRun, Path | None]]) -> str:
    """Return the scores of every head, with what is needed to judge them."""
    return "\n\n".join(_result(one, figure) for run, figure in found for one in run.results)


def _result(found: SegmentationResult, figure: Path | None) -> str:
    record, score = found.result, found.score
    counts, changed = record.counts, record.protocol.changed
    train, test = record.stores.train, record.stores.test
    recipe = found.recipe.protocol + (
        " changed: " + ", ".join(f"{name}={value}" for name, value in changed.items())
        if changed
        else ""
    )
    curve = record.details["train_loss"]
    empty = counts.train_windows_unlabelled, counts.test_images_unlabelled
    lines = [
        f"segmentation probe · {found.maps.name} · {record.representation} · {train.title}",
        *([f"  test: {test.title}"] if test.title != train.title else []),
        f"  images: {record.selection.rule}; train {counts.train_windows} windows of "
        f"{counts.train_images} images, test {counts.test_images} images, "
        f"{score.n_pixels:,} labelled pixels",
        f"  classes: {counts.classes} in the set, {counts.classes_trained} trained, "
        f"{counts.classes_scored} in the mean; chance = always "
        f"{found.maps.classes[score.majority]!r}",
        f"  mIoU {score.miou}",
        f"  mAcc {score.macc}",
        f"  aAcc {score.aacc}",
    ]
    if any(empty):
        lines.append(
            f"  without a labelled pixel: {empty[0]} training windows, {empty[1]} test images"
        )
    if found.ceiling is not None:
        lines.append(
            f"  labels brought to the tokens' grid and back up: mIoU "
            f"{100 * found.ceiling.miou.value:.2f} %, mAcc {100 * found.ceiling.macc.value:.2f} %, "
            f"aAcc {100 * found.ceiling.aacc.value:.2f} %"
        )
    lines += [
        _classes(found),
        f"  loss {curve[0]:.4g} at first, {curve[-1]:.4g} at last; protocol {recipe}",
        f"  {found.result_path}",
        f"  {found.table_path}",
    ]
    if figure is not None:
        lines.append(f"  {figure}")
    return "\n".join(lines)


def _classes(found: SegmentationResult) -> str:
    """The classes with the most labelled pixels."""
    rows = found.score.table(found.maps.classes).sort("labelled", descending=True)
    rows = rows.filter(rows["labelled"] > 0)
    shown = rows.head(CLASSES_SHOWN).to_dicts()
    cells = [
        [
            f"  {row['class']}",
            *(f"{100 * row[name]:.2f}" if row[name] is not None else "" for name in ("iou", "acc")),
            f"{row['labelled']:,}",
        ]
        for row in shown
    ]
    return table(["  largest classes", "IoU %", "Acc %", "pixels"], cells, " rrr")


def plan(made: Plan) -> str:
    """What every way costs, the rates behind it, and the one to take."""
    work = made.work
    rows = [
        [
            way.machine,
            way.name,
            size(way.n_bytes) + ("" if way.n_bytes <= made.free_bytes else " (does not fit)"),
            duration(HOUR * way.encode_hours),
            duration(HOUR * way.train_hours),
            duration(HOUR * way.hours),
            way.limited_by,
        ]
        for way in made.ways
    ]
    classes = ", ".join(map(str, dict.fromkeys(work.classes)))
    heads = ["machine", "way", "on disk", "encode", "train", "in all", "training limited by"]
    rates = [
        [machine.name, name, f"{rate.value:.2g} {rate.unit}", rate.source]
        for machine in made.machines
        for name, rate in machine.rates().items()
    ]
    return "\n".join(
        [
            f"segmentation plan · {work.train_images:,} training images, {work.test_images:,} test "
            f"images in {work.test_windows:,} windows of {work.crop} pixels",
            f"  encoder {made.encoder_source}: {work.tokens} tokens, {work.layers} × "
            f"{work.width} values, {size(work.window_bytes)} per window; "
            f"{work.encode_flops / 1e9:.1f} GFLOP to encode one",
            f"  heads: {len(work.classes)}, of {classes} classes; {work.iterations:,} iterations "
            f"of {work.batch} windows ({work.epochs:,.3g} epochs); "
            f"{100 * work.labelled:.0f} % of the pixels labelled; "
            f"{size(made.free_bytes)} free",
            "",
            table(heads, rows, "  rrrr"),
            "",
            table(["machine", "rate", "", "source"], rates),
            "",
            f"take: {made.advice.text}.",
        ]
    )
