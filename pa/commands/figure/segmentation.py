"""`pa figure segmentation`: labels and predictions of segmentation heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.output import encoders, output, show

if TYPE_CHECKING:
    from pa.figures.record import FigureOutput
    from pa.workspace import Workspace


@click.command()
@encoders
@click.option(
    "--labels",
    callback=options.listed,
    help="Label set, such as pascal-object,pascal-part. Default: the stored objects and parts.",
)
@click.option("--protocol", help="Protocol of the heads. Default: paper, if it exists.")
@click.option("--image", "images", callback=options.listed, help="Name of an image, or several.")
@click.option(
    "--examples",
    type=click.IntRange(1, 50),
    default=4,
    show_default=True,
    help="Number of images, without --image.",
)
@click.option("--root", type=options.PATH, help="Current root folder of the images.")
@click.option("--device", help="Torch device: auto, cpu, cuda …")
@output
@options.as_json
@options.workspace
def segmentation(
    workspace: Workspace,
    encoders: tuple[str, ...],
    labels: tuple[str, ...],
    protocol: str | None,
    images: tuple[str, ...],
    examples: int,
    root: Path | None,
    device: str | None,
    output: FigureOutput,
    as_json: bool,
) -> None:
    """Draw objects against parts: image, labels, and the prediction of every encoder (Figure 6).

    The heads are those of `pa probe segmentation`; nothing is trained.

    \b
    pa figure segmentation --labels pascal-object,pascal-part
    pa figure segmentation --encoder deit,cae,ibot --image 2008_000009 --out figure6
    """
    from pa.tasks.figure_segmentation import SegmentationFigureRequest, figure_segmentation

    request = SegmentationFigureRequest(
        encoders, labels, protocol, images, examples, root, device, output
    )
    show(figure_segmentation(workspace.config, request, workspace.progress), as_json)
