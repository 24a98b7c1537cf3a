"""Options and output that the commands of `pa figure` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.figures.record import WrittenFigure


output = options.Group(
    "output",
    "pa.figures.record:FigureOutput",
    click.Option(
        ["--out"],
        type=options.PATH,
        help="File .pdf, .png or .svg; a path without suffix gives PDF and PNG. Default: figures/.",
    ),
    click.Option(["--name"], help="Name of the files below figures/."),
    click.Option(
        ["--width"],
        type=float,
        default=6.5,  # style.PAGE_WIDTH, without the import at startup
        show_default=True,
        help="Width in inches; a column has 3.25.",
    ),
)
encoders = click.option(
    "--encoder",
    "encoders",
    callback=options.listed,
    help="Encoder, or several separated by commas. Default: all that are stored.",
)


def show(figure: WrittenFigure, as_json: bool) -> None:
    """Print the caption and the files of a figure."""
    if as_json:
        options.emit(figure.to_json())
        return
    console.out(figure.record.caption)
    console.out("\n" + "\n".join(map(str, figure.files)))
