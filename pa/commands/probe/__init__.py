"""`pa probe`: train and apply light classifiers on stored features."""

from __future__ import annotations

import click

from pa.commands.probe.attentive import attentive
from pa.commands.probe.knn import knn
from pa.commands.probe.linear import linear
from pa.commands.probe.predict import predict
from pa.commands.probe.segmentation import segmentation


@click.group()
def probe() -> None:
    """Train classifiers on stored features."""


for command in (linear, attentive, knn, segmentation, predict):
    probe.add_command(command)
