"""`pa figure`: parse, call one function of its module in `pa.tasks`, print."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console
from pa.commands.old_options import PATH, F, emit, listed, numbers, with_config, with_json

if TYPE_CHECKING:
    from pa.figures.record import WrittenFigure


def placed(command: F) -> F:
    """Give a command --out, --name and --width."""
    for option in reversed(
        [
            click.option(
                "--out",
                type=PATH,
                help="A .pdf, .png or .svg file; without a suffix PDF and PNG. Default: figures/.",
            ),
            click.option("--name", help="What the files below figures/ are called."),
            click.option(
                "--width",
                type=float,
                default=6.5,
                show_default=True,
                help="Inches; a column is 3.25.",
            ),
        ]
    ):
        command = option(command)
    return command


ENCODERS = click.option(
    "--encoder", "encoders", callback=listed, help="Encoders, with commas. Default: all there are."
)


@click.group()
def figure() -> None:
    """Draw the figures of the paper, each alone, ready for print.

    Each is a PDF and a PNG, with its caption in NAME.txt and all that it was made from in
    NAME.json and in the files' metadata.
    """


def searching(command: F) -> F:
    """Give a command the options of a figure of neighbours."""
    options: list[Callable[[F], F]] = [
        click.option(
            "--query",
            "queries",
            callback=listed,
            help="Row id, or NAME:REGION of an image; with commas. Default for imagenet: "
            "those of the released code.",
        ),
        click.option(
            "--example",
            "examples",
            callback=numbers,
            help="Of the default queries these, from 1, with commas.",
        ),
        ENCODERS,
        click.option(
            "--representation",
            "representations",
            callback=listed,
            help="cls or pooled. Default: pooled.",
        ),
        click.option("--dataset", help="Dataset of the stores."),
        click.option("--split", help="Split of the stores."),
        click.option("--view", help="View of the stores; default: grid, where it is there."),
        click.option("--protocol", help="Rules of view parts."),
        click.option(
            "--store", "stores", callback=listed, help="Their fingerprints, in place of these."
        ),
        click.option(
            "-k", "k", type=click.IntRange(1), default=24, show_default=True, help="Neighbours."
        ),
        click.option(
            "--across", type=click.IntRange(1, 6), help="Panels side by side; default 1 or 2."
        ),
        click.option("--exclude-same-image", is_flag=True, help="Not the query's own image."),
        click.option("--root", type=PATH, help="Where the images lie now."),
        placed,
        with_json,
        with_config,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@figure.command()
@searching
def neighbours(config: Any, as_json: bool, **given: Any) -> None:
    """The nearest regions of the same query by several encoders (Figures 2, 7 and 8).

    \b
    pa figure neighbours --encoder deit,mocov3,cae --query val_00013660:19
    pa figure neighbours --dataset cub --view parts --query 123,456 --out figure2
    """
    from pa.tasks.figure import figure_neighbours
    from pa.tasks.figure_stores import PatchesRequest

    request = PatchesRequest(output=_output(given), **given)
    _show(figure_neighbours(config, request, console.progress()), as_json)


@figure.command()
@searching
def projected(config: Any, as_json: bool, **given: Any) -> None:
    """The nearest regions of a query by encoded and by projected vectors (Figure 4).

    \b
    pa figure projected --encoder mocov3
    pa figure projected --encoder mocov3,dino,ibot --representation cls --out figure4.pdf
    """
    from pa.tasks.figure import figure_projected
    from pa.tasks.figure_stores import PatchesRequest

    request = PatchesRequest(output=_output(given), **given)
    _show(figure_projected(config, request, console.progress()), as_json)


def scored(command: F) -> F:
    """Give a command the options of a figure of results."""
    options: list[Callable[[F], F]] = [
        ENCODERS,
        click.option("--dataset", help="Dataset of the results."),
        click.option("--protocol", help="Protocol of the results; default paper, if it is there."),
        placed,
        with_json,
        with_config,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@figure.command()
@scored
def depth(config: Any, as_json: bool, **given: Any) -> None:
    """Average precision of part retrieval after every block, a line for each encoder.

    \b
    pa figure depth --dataset cub
    pa figure depth --dataset cub --encoder deit,dino --width 3.25 --out depth.pdf
    """
    from pa.tasks.figure_scores import ScoresRequest, figure_depth

    request = ScoresRequest(output=_output(given), **given)
    _show(figure_depth(config, request, console.progress()), as_json)


@figure.command()
@click.option("-k", "k", type=int, help="Of how many neighbours; default 24, or all if fewer.")
@scored
def shares(config: Any, as_json: bool, **given: Any) -> None:
    """Part against whole: what the nearest neighbours of part patches are.

    \b
    pa figure shares --dataset cub
    pa figure shares --dataset coco --encoder mocov3,dino,ibot --protocol released
    """
    from pa.tasks.figure_scores import ScoresRequest, figure_shares

    request = ScoresRequest(output=_output(given), **given)
    _show(figure_shares(config, request, console.progress()), as_json)


@figure.command()
@scored
def sweep(config: Any, as_json: bool, **given: Any) -> None:
    """Validation accuracy of the linear probe by learning rate and weight decay.

    \b
    pa figure sweep --dataset cub
    pa figure sweep --dataset cub --encoder dino,mae --width 3.25
    """
    from pa.tasks.figure_scores import ScoresRequest, figure_sweep

    request = ScoresRequest(output=_output(given), **given)
    _show(figure_sweep(config, request, console.progress()), as_json)


@figure.command()
@ENCODERS
@click.option(
    "--labels",
    callback=listed,
    help="Label sets, such as pascal-object,pascal-part. Default: the objects and parts there are.",
)
@click.option("--protocol", help="Protocol of the heads; default paper, if it is there.")
@click.option("--image", "images", callback=listed, help="Names of images, with commas.")
@click.option(
    "--examples", type=click.IntRange(1, 50), default=4, show_default=True, help="Or how many."
)
@click.option("--root", type=PATH, help="Where the images lie now.")
@click.option("--device", help="auto, cpu, cuda …")
@placed
@with_json
@with_config
def segmentation(config: Any, as_json: bool, **given: Any) -> None:
    """Objects against parts: image, labels, and the prediction of every encoder (Figure 6).

    The heads are those of `pa probe segmentation`; nothing is trained.

    \b
    pa figure segmentation --labels pascal-object,pascal-part
    pa figure segmentation --encoder deit,cae,ibot --image 2008_000009 --out figure6
    """
    from pa.tasks.figure_segmentation import SegmentationFigureRequest, figure_segmentation

    request = SegmentationFigureRequest(output=_output(given), **given)
    _show(figure_segmentation(config, request, console.progress()), as_json)


def _output(given: dict[str, Any]) -> Any:
    """Take --out, --name and --width out of a command's options."""
    from pa.figures.record import FigureOutput

    return FigureOutput(given.pop("out"), given.pop("width"), given.pop("name"))


def _show(figure: WrittenFigure, as_json: bool) -> None:
    if as_json:
        emit(figure.to_json())
        return
    console.out(figure.record.caption)
    console.out("\n" + "\n".join(str(path) for path in figure.files))
