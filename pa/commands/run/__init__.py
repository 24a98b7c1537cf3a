"""`pa run`: run a whole study."""

from __future__ import annotations

import click

from pa.commands.run.paper import paper


@click.group(commands=[paper])
def run() -> None:
    """Run a whole study, one command after the other."""
