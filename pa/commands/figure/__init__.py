"""`pa figure`: draw the figures of the paper."""

from __future__ import annotations

import click

from pa.commands.figure.depth import depth
from pa.commands.figure.neighbours import neighbours
from pa.commands.figure.projected import projected
from pa.commands.figure.segmentation import segmentation
from pa.commands.figure.shares import shares
from pa.commands.figure.sweep import sweep


@click.group(commands=[depth, neighbours, projected, segmentation, shares, sweep])
def figure() -> None:
    """Draw the figures of the paper, each one separately, ready for print.

    Each is a PDF and a PNG, with its caption in NAME.txt and its sources in NAME.json and in the
    metadata of the files.
    """
