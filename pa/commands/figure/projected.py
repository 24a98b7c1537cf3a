"""`pa figure projected`: neighbours by encoded and by projected vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.neighbours import draw_searches, select_stores
from pa.commands.figure.selection import PatchSearch, output, patch_search, show
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.figures.record import FigureOutput
    from pa.workspace import Workspace


@click.command()
@patch_search
@output
@options.as_json
@options.workspace
def projected(
    workspace: Workspace, patches: PatchSearch, output: FigureOutput, as_json: bool
) -> None:
    """Draw the nearest regions of a query by encoded and by projected vectors (Figure 4).

    A missing index is built first.

    \b
    pa figure projected --encoder mocov3
    pa figure projected --encoder mocov3,dino,ibot --representation cls --out figure4.pdf
    """
    from pa.figures.names import representation_title

    encoded = patches.representations or (workspace.settings.representation,)
    if len(encoded) != 1 or encoded[0] == "projected":
        raise UsageError(
            f"--representation is the encoded vector to compare with the projected one: cls or "
            f"pooled, not {', '.join(encoded)}."
        )
    vector = representation_title(encoded[0])
    figure = draw_searches(
        workspace,
        "projected",
        select_stores(workspace, patches, "projected"),
        replace(patches, representations=encoded),
        output,
        lambda encoders: (
            f"Encoded against projected: top-{patches.k} neighbours by {encoders}",
            f"Patch retrieval with encoded (left: {vector}) and projected vectors of {encoders}.",
        ),
        more=("projected",),  # the right one of two panels
    )
    show(figure, as_json)
