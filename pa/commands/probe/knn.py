"""`pa probe knn`: classify by weighted nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.probe.rows import (
    RowSelector,
    device_option,
    heading,
    indented,
    interval_text,
    rows_options,
    usual_representation,
)
from pa.progress import Named

if TYPE_CHECKING:
    from pa.probe.knn import KnnResult
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
    from pa.probe.knn import run_knn
    from pa.probe.linear.recipes import LINEAR_PROTOCOLS
    from pa.probe.recipes import permitted_differences

    rows = rows.complete(workspace)
    if rows.protocol is not None:
        LINEAR_PROTOCOLS[rows.protocol]  # raises for an unknown name, with the nearest ones
    train, test = rows.stores(workspace)
    result = run_knn(
        train,
        test,
        results=workspace.config.results,
        representation=representation or usual_representation(train),
        split_options=rows.split_options(seed),
        permitted=permitted_differences(rows.protocol or ""),
        ks=ks or None,
        temperature=temperature,
        device=workspace.device(device),
        progress=Named(workspace.progress, train.label),
    )
    if as_json:
        options.emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(knn_text(result))


def knn_text(result: KnnResult) -> str:
    """Return the accuracy of every k."""
    rows = [
        [str(k), f"{100 * scores.value:.2f}", interval_text(scores)]
        for k, scores in result.scores.items()
    ]
    record, first = result.result, next(iter(result.scores.values()))
    lines = [
        *heading("k-NN probe", record.representation, result.split),
        *indented(console.table(["k", "accuracy %", "95 % interval"], rows, "rrr")),
        f"  every k is reported, none is chosen; votes weigh exp(cosine / "
        f"{record.protocol.parameters['temperature']:g}); {first.interval.method}; chance "
        f"{100 * first.chance.majority:.2f} %",
        f"  {result.result_path}",
    ]
    return "\n".join(lines)
