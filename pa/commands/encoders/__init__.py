"""`pa encoders`: list encoders, check and download their checkpoints."""

from __future__ import annotations

import click

from pa.commands.encoders.check import check
from pa.commands.encoders.fetch import fetch
from pa.commands.encoders.list import list_encoders


@click.group()
def encoders() -> None:
    """List the encoders, check their checkpoint files and download them."""


for command in (list_encoders, check, fetch):
    encoders.add_command(command)
