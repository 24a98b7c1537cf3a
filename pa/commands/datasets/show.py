"""`pa datasets show`: count the regions of a split and draw a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options
from pa.commands.datasets.check import first_lines, parts_text
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.data.schema import Images
    from pa.data.views.base import FixedView
    from pa.data.views.parts import PartsView
    from pa.workspace import Workspace


@click.command()
@click.argument("dataset")
@click.option("--root", type=options.PATH, help="Root folder of the dataset.")
@click.option("--split", help="Split of the dataset; needed if it has several.")
@click.option("--view", help="View: image, grid or parts. Default: that of the dataset.")
@click.option("--boxes", type=options.PATH, help="Table of boxes for view parts, CSV or Parquet.")
@click.option(
    "--protocol", help="Protocol of view parts, such as paper or released. Default: paper."
)
@click.option(
    "--view-option",
    "view_options",
    multiple=True,
    callback=options.key_values,
    help="One field of a view, as NAME=VALUE; see docs/views.md.",
)
@click.option("--part", "parts", multiple=True, help="Draw only this part; may be repeated.")
@click.option(
    "--examples",
    type=click.IntRange(1, 40),
    default=12,
    show_default=True,
    help="Number of patches of each part, or of images.",
)
@click.option("--out", type=options.PATH, help="Draw a contact sheet to a .png, .jpg or .pdf file.")
@options.as_json
@options.workspace
def show(
    workspace: Workspace,
    dataset: str,
    root: Path | None,
    split: str | None,
    view: str | None,
    boxes: Path | None,
    protocol: str | None,
    view_options: tuple[tuple[str, Any], ...],
    parts: tuple[str, ...],
    examples: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Count the regions of a split, and draw a contact sheet of regions or of masks.

    \b
    pa datasets show cub --split all --view parts --out sheet.png
    pa datasets show pascal-part --root pascal-part/ --split val --out overlay.png
    pa datasets show imagenet --root /data/imagenet --split val --out grid.png
    pa datasets show coco --split val2017 --protocol released --view-option min_d=20
    """
    from pa.data.datasets.segmentation.labels import LABEL_SETS
    from pa.data.views.base import FixedView
    from pa.data.views.parts import PartsView

    images = workspace.images(dataset, split=split, root=root, boxes=boxes)
    kind = workspace.dataset_kind(dataset)
    if kind in LABEL_SETS:
        content, text = _masks(images, kind, examples, out)
    else:
        names = (view,) if view else ()
        (chosen,) = workspace.views(images, names, protocol=protocol, options=view_options)
        if isinstance(chosen, FixedView):
            if parts:
                raise UsageError(f"--part selects parts; view {chosen.name} has none.")
            content, text = _regions(images, chosen, examples, out)
        elif isinstance(chosen, PartsView):
            content, text = _parts(workspace, images, chosen, parts, examples, out)
        else:
            raise UsageError(
                f"pa datasets show draws image, grid and parts; view {chosen.name} has no sheet."
            )
    if as_json:
        options.emit(content)
    else:
        console.out("\n".join(text))


def _masks(
    images: Images, kind: str, examples: int, out: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what is shown of masks, as JSON and as lines of text."""
    from pa.data.datasets.segmentation import tree
    from pa.figures.segmentation import draw_masks

    label_set = tree.label_set(kind, images.root)
    title = f"{images.dataset} · {images.split} · {label_set.title}, {len(images.table):,} images"
    drawn = [] if out is None else draw_masks(out, images, label_set, examples)
    content = {"title": title, "certainty": label_set.certainty, "images": drawn}
    text = [title, f"  {label_set.certainty}"]
    if out is not None:
        text.append(f"{len(drawn)} images with their masks: {out}")
    return {**content, "sheet": out and str(out)}, text


def _regions(
    images: Images, view: FixedView, examples: int, out: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what is shown of views whose boxes are the same for every image."""
    from pa.figures.contact_sheet import draw_regions

    title = f"{images.dataset} · {images.split} · view {view.name}"
    if out is not None:
        draw_regions(out, images, view, title, examples)
    n_images, n_rows = len(images.table), len(images.table) * len(view.boxes())
    content = {"title": title, "view": view.to_json(), "images": n_images, "rows": n_rows}
    text = [f"{title}: {n_rows:,} regions of {n_images:,} images"]
    return {**content, "sheet": out and str(out)}, [*text, *([f"sheet: {out}"] if out else [])]


def _parts(
    workspace: Workspace,
    images: Images,
    view: PartsView,
    parts: tuple[str, ...],
    examples: int,
    out: Path | None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the kept and skipped parts, and images of another size than annotated."""
    from pa.data.datasets.check import check_sizes
    from pa.data.views.parts import protocol_of
    from pa.figures.contact_sheet import SheetOptions, draw_parts

    selection = view.select(images)
    name, changed = protocol_of(view)
    fields = "".join(f", {key}={value}" for key, value in changed.items())
    title = f"{images.dataset} · {images.split} · view parts · protocol {name}{fields}"
    if out is not None:
        draw_parts(out, images, selection, title, SheetOptions(parts, examples, view.resize))
    paths = selection.rows["path"].unique(maintain_order=True).to_list()
    odd_sizes = check_sizes(images, paths, workspace.progress)
    content = {
        "title": title,
        "view": view.to_json(),
        "counts": selection.counts.to_json(),
        "sheet": out and str(out),
        "odd_sizes": odd_sizes,
    }
    text = [title, parts_text(selection.counts)]
    text += first_lines([f"wrong size: {path}: {reason}" for path, reason in odd_sizes])
    return content, [*text, *([f"sheet: {out}"] if out else [])]
