"""`pa probe knn`: classify by weighted nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.probe.rows import (
    RowSelector,
    device_option,
    rows_options,
    scores_text,
    show,
    usual_representation,
)
from pa.progress import Named

if TYPE_CHECKING:
    from pa.workspace import Workspace


@click.command()
@rows_options
@click.option(
    "--representation", help="Representation: cls, pooled or projected. Default: cls, if stored."
)
@click.option(
    "-k",
    "ks",
    callback=options.numbers,
    help="Numbers of neighbours, separated by commas. Default: 10,20,100,200.",
)
@click.option(
    "--temperature",
    type=float,
    default=0.07,
    show_default=True,
    help="Temperature T of the votes exp(cosine / T).",
)
@click.option("--seed", type=int, default=0, help="Seed of held-out images.")
@device_option
@options.as_json
@options.workspace
def knn(
    workspace: Workspace,
    rows: RowSelector,
    representation: str | None,
    ks: tuple[int, ...],
    temperature: float,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Classify by weighted nearest neighbours, the protocol of DINO.

    Nothing is trained. For view parts, --protocol names the stores for training and test rows.

    \b
    pa probe knn --train-split train --test-split val
    """
    from pa.probe.knn import KnnOptions, run_knn
    from pa.probe.linear.recipes import LINEAR_PROTOCOLS

    rows = rows.complete(workspace)
    if rows.protocol is not None:
        LINEAR_PROTOCOLS[rows.protocol]  # raises for an unknown name, with the nearest ones
    stores = rows.stores(workspace, seed)
    knn_options = KnnOptions(
        representation or usual_representation(stores.train), ks, temperature, rows.protocol or ""
    )
    result = run_knn(
        stores,
        knn_options,
        results=workspace.config.results,
        device=workspace.device(device),
        progress=Named(workspace.progress, stores.train.label),
    )
    note = f"every k is reported, none is chosen; votes weigh exp(cosine / {temperature:g})"
    show(result, scores_text("k-NN probe", result, "k", note), as_json=as_json)
