"""`pa datasets`: list, check, show and build datasets."""

from __future__ import annotations

import click

from pa.commands.datasets.build import build
from pa.commands.datasets.check import check
from pa.commands.datasets.list import list_datasets
from pa.commands.datasets.show import show


@click.group(commands=[list_datasets, check, show, build])
def datasets() -> None:
    """List, check, show and build the datasets that can be read."""
