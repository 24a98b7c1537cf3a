"""`pa datasets`: parse, call one function of `pa.tasks.datasets`, print."""

from __future__ import annotations

import sys
from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import PATH, choosing_parts, emit, with_config, with_json
from pa.errors import EXIT_PARTLY_DONE


@click.group()
def datasets() -> None:
    """The datasets that can be read."""


@datasets.command("list")
@with_json
@with_config
def datasets_list(config: Any, as_json: bool) -> None:
    """List the kinds of dataset with their layout, and the datasets that are configured."""
    from pa.data.datasets import DATASETS

    configured = {name: str(config.path(d.root)) for name, d in config.settings.datasets.items()}
    if as_json:
        kinds = {name: DATASETS[name].layout for name in DATASETS}
        emit({"kinds": kinds, "configured": configured})
        return
    for name in DATASETS:
        console.out(f"{name}\n{DATASETS[name].layout}\n")
    lines = "\n".join(f"  {name}  {root}" for name, root in configured.items())
    console.out(f"configured in {config.file}:\n{lines or '  none'}")


@datasets.command("check")
@click.argument("name")
@click.option("--root", type=PATH, help="Where the dataset lies.")
@click.option("--split", help="Only this split.")
@click.option("--boxes", type=PATH, help="Table of boxes for view parts: CSV or Parquet.")
@click.option("--quick", is_flag=True, help="Counts only: do not open the images.")
@with_json
@with_config
def datasets_check(config: Any, as_json: bool, **given: Any) -> None:
    """Compare a dataset with its official release: counts, missing and unreadable files.

    Exit code 3 = it is not there, and the layout that was expected; 6 = some files cannot be read.

    \b
    pa datasets check cub --root CUB_200_2011
    pa datasets check ade20k-part --root ade20k-part
    """
    from pa.commands import text_datasets as describe_datasets
    from pa.commands import text_masks as describe_masks
    from pa.tasks.datasets import DatasetCheck, check_dataset
    from pa.tasks.segmentation import TreeCheck, check_tree, has_masks

    found: DatasetCheck | TreeCheck
    if has_masks(config, given["name"]):
        given.pop("boxes")
        found = check_tree(config, **given, progress=console.progress())
        text = describe_masks.check(found)
    else:
        found = check_dataset(config, **given, progress=console.progress())
        text = describe_datasets.check(found)
    if as_json:
        emit(found.to_json())
    else:
        console.out(text)
    if not found.is_whole:
        sys.exit(EXIT_PARTLY_DONE)


@datasets.command("show")
@click.argument("dataset")
@click.option("--root", type=PATH, help="Where the dataset lies.")
@click.option("--split", help="Split of the dataset; may be left out where there is one.")
@click.option("--view", help="image, grid or parts; default: the usual view of the dataset.")
@choosing_parts
@click.option("--part", "parts", multiple=True, help="Only this part; may be repeated.")
@click.option("--examples", type=click.IntRange(1, 40), default=12, help="Per part, or images.")
@click.option("--out", type=PATH, help="Draw a contact sheet to a .png, .jpg or .pdf.")
@with_json
@with_config
def datasets_show(config: Any, as_json: bool, **given: Any) -> None:
    """Count the regions of a split, and draw a contact sheet of them; or masks over their images.

    \b
    pa datasets show cub --split all --view parts --out sheet.png
    pa datasets show pascal-part --root pascal-part/ --split val --out overlay.png
    pa datasets show imagenet --root /data/imagenet --split val --out grid.png
    pa datasets show coco --split val2017 --protocol released --view-option min_d=20
    """
    from pa.commands import text_datasets as describe_datasets
    from pa.commands import text_masks as describe_masks
    from pa.tasks.datasets import Shown, ShownRegions, ShowRequest, show_dataset
    from pa.tasks.segmentation import ShownMasks, has_masks, show_masks

    shown: Shown | ShownRegions | ShownMasks
    request = ShowRequest(**given)
    if has_masks(config, request.dataset):
        shown = show_masks(config, request)
        text = describe_masks.show(shown)
    else:
        shown = show_dataset(config, request, console.progress())
        if isinstance(shown, ShownRegions):
            text = describe_datasets.regions(shown)
        else:
            text = describe_datasets.show(shown)
    if as_json:
        emit(shown.to_json())
    else:
        console.out(text)


@datasets.command("build")
@click.argument("name")
@click.option("--root", type=PATH, required=True, help="Where the official release lies.")
@click.option("--out", type=PATH, required=True, help="Where images and index PNGs go.")
@click.option(
    "--rule",
    help="pascal-part: file (default) or area, the order of painting; ade20k-object: challenge "
    "(default) or seg, the masks it is made from.",
)
@click.option("--images", type=PATH, help="Where VOC2010 lies, if not under --root.")
@click.option("--split", help="Only this split.")
@click.option("--copy", is_flag=True, help="Copy the images; by default they are linked.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Threads.")
@with_json
@with_config
def datasets_build(config: Any, as_json: bool, workers: int | None, **given: Any) -> None:
    """Write images and index PNGs (0 = ignored, k = class k) from an official release.

    NAME is ade20k, ade20k-object, ade20k-part, pascal-object, pascal-part or lip. The same command
    goes on where it was interrupted. Exit code 6 = some annotations are faulty: they are listed,
    and all others are done.

    \b
    pa datasets build ade20k-part --root ADE20K_2021_17_01 --out ade20k-part
    pa datasets build pascal-part --root pascal_part --images VOCdevkit --out pascal-part
    """
    from pa.commands import text_masks as describe_masks
    from pa.tasks.segmentation import BuildRequest, build_dataset

    request = BuildRequest(**given, workers=workers or 0)
    reports = build_dataset(config, request, console.progress())
    if as_json:
        emit({"out": str(request.out), "splits": [report.to_json() for report in reports]})
    else:
        console.out(describe_masks.built(reports, request.out))
    if any(report.faults for report in reports):
        sys.exit(EXIT_PARTLY_DONE)
