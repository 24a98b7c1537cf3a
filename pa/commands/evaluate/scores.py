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
    from pa.evaluate.intervals import Interval
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
    names: Sequence[str | None] = encoders or (None,)
    if not encoders and selector.fingerprint is None and workspace.settings.encoder:
        names = workspace.encoder_names()
    stores = []
    for name in names:
        query = workspace.complete(replace(selector, encoder=name))
        if query.fingerprint is None:
            query = _of_parts(workspace, query, selector.view)
        stores.append(workspace.store(query, preferred))
    return list({store.path: store for store in stores}.values())


def _of_parts(workspace: Workspace, selector: StoreSelector, view: str | None) -> StoreSelector:
    """Complete a selector: view parts, whatever view the settings name for other commands, and the
    retrieval split of the dataset; else the selector as it is."""
    from pa.data.store import find

    features = workspace.config.features
    candidates = [replace(selector, view=view or "parts")]
    if selector.split is None and selector.dataset is not None:
        split = RETRIEVAL_SPLITS.get(workspace.dataset_kind(selector.dataset))
        candidates.insert(0, replace(candidates[0], split=split))
    for candidate in [*candidates, selector]:
        if any(find.find(features, candidate)):
            return candidate
        find.check_readable(features, candidate)
    return candidates[0] if view or _has_parts(workspace, selector.dataset) else selector


def _has_parts(workspace: Workspace, dataset: str | None) -> bool:
    """Return whether a dataset can be cut into parts; True for an unknown one."""
    from pa.data.datasets import DATASETS

    if dataset is None:
        return True
    entry, kind = workspace.settings.datasets.get(dataset), workspace.dataset_kind(dataset)
    official = kind not in DATASETS or DATASETS[kind].annotations is not None
    return official or bool(entry and entry.boxes)


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
    return "one image only" if mean.interval is None else ends(mean.interval, form)


def ends(interval: Interval | None, form: str = ".2f") -> str:
    if interval is None:
        return ""
    return f"{100 * interval.low:{form}} to {100 * interval.high:{form}}"


def files(results: Sequence[Path], figures: Sequence[Path | None]) -> list[str]:
    """Return lines with the paths of results and figures."""
    lines = [str(path) for path in results]
    if len(lines) > FILES_SHOWN:
        lines = [f"{len(results)} results, with .parquet of their queries, in {results[0].parent}"]
    return lines + [f"figure: {path}" for path in figures if path]
