"""`pa figure neighbours`: neighbours of the same query by several encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.output import output, show
from pa.commands.figure.patch_search import PatchSearch, patch_search
from pa.commands.figure.patches import draw_searches

if TYPE_CHECKING:
    from pa.figures.record import FigureOutput
    from pa.workspace import Workspace


@click.command()
@patch_search
@output
@options.as_json
@options.workspace
def neighbours(
    workspace: Workspace, patches: PatchSearch, output: FigureOutput, as_json: bool
) -> None:
    """Draw the nearest regions of the same query by several encoders (Figures 2, 7 and 8).

    A missing index is built first.

    \b
    pa figure neighbours --encoder deit,mocov3,cae --query val_00013660:19
    pa figure neighbours --dataset cub --view parts --query 123,456 --out figure2
    """
    from pa.figures.names import listed, representation_title

    representations = patches.representations or (workspace.settings.representation,)
    vectors = listed(representation_title(name) for name in representations)
    figure = draw_searches(
        workspace,
        "neighbours",
        patches,
        representations,
        output,
        across=1,  # each encoder below the previous one
        describe=lambda encoders: (
            f"Top-{patches.k} neighbours of the same patch by {encoders}",
            f"Top-{patches.k} patch retrieval with {encoders} ({vectors}).",
        ),
    )
    show(figure, as_json)
