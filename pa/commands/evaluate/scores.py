"""Options, stores and tables that the commands of `pa evaluate` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.console import table

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.data.store.reader import Store
    from pa.evaluate.bootstrap import Mean
    from pa.workspace import Workspace

# The retrieval database of the paper's datasets (released code): all of CUB, and the training
# images of COCO.
RETRIEVAL_SPLITS = {"cub": "all", "coco": "train2017"}
FILES_SHOWN = 8  # paths of results; of more, their folder is printed

representations = click.option(
    "--representation",
    "representations",
    callback=options.listed,
    help="Stored vector: cls, pooled, projected, or several separated by commas. "
    "Default: all stored.",
)


def part_stores(
    workspace: Workspace,
    selector: StoreSelector,
    encoders: Sequence[str],
    preferred: Callable[[Store], bool] | None = None,
) -> list[Store]:
    """Return one store per encoder: by default of view parts and of the retrieval split."""
    names: Sequence[str | None] = encoders or (None,)  # None: the only stored encoder
    if not encoders and selector.fingerprint is None and workspace.settings.encoder:
        names = workspace.encoder_names()
    stores = []
    for name in names:
        query = workspace.complete(replace(selector, encoder=name))
        if query.fingerprint is None:
            query = _complete_parts(workspace, query, selector.view)
        stores.append(workspace.store(query, preferred))
    return list({store.path: store for store in stores}.values())  # two names can select one store


def _complete_parts(
    workspace: Workspace, selector: StoreSelector, view: str | None
) -> StoreSelector:
    """Select view parts, whatever the settings name, and the retrieval split, where they exist."""
    from pa.data.datasets import DATASETS
    from pa.data.store import find

    features, dataset = workspace.config.features, selector.dataset
    candidates = [replace(selector, view=view or "parts")]
    kind = None if dataset is None else workspace.dataset_kind(dataset)
    if selector.split is None and kind is not None:
        candidates.insert(0, replace(candidates[0], split=RETRIEVAL_SPLITS.get(kind)))
    for candidate in [*candidates, selector]:
        if any(find.find(features, candidate)):
            return candidate
        find.check_readable(features, candidate)
    if view or dataset is None or kind is None or kind not in DATASETS:
        return candidates[0]
    if DATASETS[kind].annotations is not None:
        return candidates[0]
    entry = workspace.settings.datasets.get(dataset)
    return candidates[0] if entry and entry.boxes else selector  # else it cannot be cut into parts


# -- text ------------------------------------------------------------------------------------------


def differences(pairs: Sequence[tuple[str, Mean]], title: str = "difference, paired") -> str:
    """Return a table of differences in points."""
    rows = []
    for name, mean in pairs:
        unclear = mean.interval is not None and mean.low <= 0 <= mean.high
        verdict = "not distinguishable from 0" if unclear else ""
        rows.append([name, f"{100 * mean.value:+.2f}", interval_text(mean, "+.2f"), verdict])
    return table([title, "points", "95 % interval", ""], rows, " r")


def interval_text(mean: Mean, form: str = ".2f") -> str:
    return "one image only" if mean.interval is None else mean.interval.text(form)


def files(results: Sequence[Path], figures: Sequence[Path | None]) -> list[str]:
    """Return lines with the paths of results and figures."""
    lines = [str(path) for path in results]
    if len(lines) > FILES_SHOWN:
        lines = [f"{len(results)} results, with .parquet of their queries, in {results[0].parent}"]
    return lines + [f"figure: {path}" for path in figures if path]
