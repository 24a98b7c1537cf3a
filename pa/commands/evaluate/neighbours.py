"""`pa evaluate neighbours`: part against whole among the nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.evaluate import scores

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.evaluate.neighbours import Shares
    from pa.evaluate.rows import Paired
    from pa.workspace import Workspace


@click.command()
@options.encoders
@scores.representations
@options.stores_of_encoders
@click.option("-k", type=int, help="Number of neighbours. Default: 24, or all others if fewer.")
@click.option("--figure", type=options.PATH, help="Draw the shares as stacked bars.")
@click.option("--hubs", type=options.PATH, help="Draw the patches that are most often a neighbour.")
@click.option("--root", type=options.PATH, help="Current root folder of the images, for --hubs.")
@options.as_json
@options.workspace
def neighbours(
    workspace: Workspace,
    encoders: tuple[str, ...],
    representations: tuple[str, ...],
    selector: StoreSelector,
    k: int | None,
    figure: Path | None,
    hubs: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Measure whether the nearest neighbours of a part show the same part or the same object.

    Report the shares of the same part of other objects, of other parts of the same object or
    class, and of random neighbours. With a projector, also report how projection changes these
    shares (the paper's Figure 4, as numbers).

    \b
    pa evaluate neighbours --encoder mocov3,dino --dataset cub --figure shares.pdf
    pa evaluate neighbours -k 24 --hubs hubs.png
    """
    from pa.evaluate.neighbours import measure_stores
    from pa.figures.neighbours import draw_hubs
    from pa.figures.scores import draw_shares
    from pa.figures.style import Target, check_suffix

    figures = [path for path in (figure, hubs) if path is not None]
    for path in figures:
        check_suffix(path)  # before the search, which takes longer
    shares, differences = measure_stores(
        scores.part_stores(workspace, selector, encoders),
        list(dict.fromkeys(representations)),  # without repetitions
        k,
        results=workspace.config.results,
        progress=workspace.progress,
    )
    if figure is not None:
        draw_shares([entry.result for entry in shares], Target([figure]))
    if hubs is not None:
        draw_hubs(shares, root, Target([hubs]))
    if not as_json:
        console.out(_text(shares, differences, figures))
        return
    options.emit(
        {
            "results": [entry.to_json() for entry in shares],
            "differences": [
                {
                    "encoder": entry.first.encoder,
                    "name": f"{entry.first.representation} − {entry.second.representation}",
                    "scores": {name: mean.to_json() for name, mean in entry.scores.items()},
                    "file": str(entry.path),
                }
                for entry in differences
            ],
            "figures": [str(path) for path in figures],
        }
    )


def _text(
    shares: Sequence[Shares], differences: Sequence[Paired[Shares]], figures: Sequence[Path]
) -> str:
    """Return shares of the neighbours, the effect of projection, hubness, and the files."""
    first = shares[0]  # all shares are of the same rows
    spec, counts = first.store.spec, first.result.counts
    lines = [
        f"{first.result.k} nearest neighbours · {spec.dataset}/{spec.split}/"
        f"{first.store.view}: {counts.rows} patches of {counts.images} images",
    ]
    for entry in shares:
        rows = []
        for name, label in entry.shown.items():
            mean = entry.scores[name]
            words = [label, f"{100 * mean.value:.2f}", scores.interval_text(mean)]
            rows.append([*words, f"{100 * mean.chance:.2f}"])
        headers = ["neighbours that are", "%", "95 % interval", "at random"]
        hubness = entry.hubness
        lines += [
            "",
            f"{entry.encoder} · {entry.representation}",
            console.table(headers, rows, " r r"),
            f"hubness: skewness {hubness.skewness:.2f} (at random {hubness.chance_skewness:.2f}); "
            f"{100 * hubness.never:.1f} % of the patches are never a neighbour; the most "
            f"frequent, row {entry.hub_rows[0]}, is that of {hubness.occurrences.max()}",
        ]
    if (interval := next(iter(first.scores.values())).interval) is not None:
        lines += ["", f"intervals: for new queries of this gallery, by {interval.method}"]
    for difference in differences:
        pairs = [(label, difference.scores[name]) for name, label in first.shown.items()]
        lines += ["", scores.differences(pairs, difference.name)]
    return "\n".join([*lines, "", *scores.files([entry.path for entry in shares], figures)])
