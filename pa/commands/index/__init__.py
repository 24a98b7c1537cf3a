"""`pa index`: build and list vector indexes."""

from __future__ import annotations

import click

from pa.commands.index.build import build
from pa.commands.index.info import info


@click.group(commands=[build, info])
def index() -> None:
    """Build and list the vector indexes of stores."""
