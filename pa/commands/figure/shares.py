"""`pa figure shares`: part against whole among the nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.selection import ResultSelector, output, results, show

if TYPE_CHECKING:
    from pa.evaluate.result_files import ResultFile
    from pa.figures.record import FigureOutput
    from pa.workspace import Workspace


@click.command()
@click.option("-k", type=int, help="Number of neighbours. Default: 24, or all others if fewer.")
@results
@output
@options.as_json
@options.workspace
def shares(
    workspace: Workspace,
    k: int | None,
    selector: ResultSelector,
    output: FigureOutput,
    as_json: bool,
) -> None:
    """Draw part against whole: relations of part patches to their nearest neighbours.

    Draws results of `pa evaluate neighbours`.

    \b
    pa figure shares --dataset cub
    pa figure shares --dataset coco --encoder mocov3,dino,ibot --protocol released
    """
    from pa.evaluate.neighbours import default_k
    from pa.evaluate.results import NeighboursResult
    from pa.figures.names import listed
    from pa.figures.scores import describe, draw_shares, gallery

    def has_k(file: ResultFile) -> bool:
        result = file.result
        wanted = default_k(result.counts.rows) if k is None else k  # 24, or fewer
        return isinstance(result, NeighboursResult) and result.k == wanted

    command = "pa evaluate neighbours" + ("" if k is None else f" -k {k}")
    collection, chosen = selector.select(workspace, "neighbours", command, has_k)
    shown_k = chosen[0].results[0].result.protocol.parameters["k"]  # also if k is the default
    encoders = listed(entry.title for entry in chosen)
    record = describe(
        "shares",
        collection,
        chosen,
        title=f"Part against whole among the {shown_k} nearest neighbours: {encoders}",
        sentence=(
            f"Relations of a part patch to its {shown_k} nearest neighbours by cosine, mean over "
            f"{gallery(chosen[0].results[0].result)}, for {encoders}; the last bar is a random "
            f"neighbour. Blue is the same part, orange another part of the same object or class."
        ),
        options=["-k", str(shown_k)],
    )
    target = record.target(output, workspace.config.figures)
    draw_shares([file.result for entry in chosen for file in entry.results], target)
    show(record.write(target.paths), as_json)
