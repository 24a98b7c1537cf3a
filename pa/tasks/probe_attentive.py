"""`pa probe attentive`: which stores and rows, then `pa.probe.attentive`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.progress import Named, Progress
from pa.tasks.choose import device
from pa.tasks.probe_rows import (
    SELECT_FRACTION,
    RowsRequest,
    probe_store,
    probe_stores,
    refuse_fraction_of_split,
    split_options,
    with_settings,
)

if TYPE_CHECKING:
    from pa.probe.attentive.recipes import AttentiveRecipe
    from pa.probe.attentive.run import AttentiveOptions, AttentiveResult
    from pa.probe.selection import SplitOptions

ORDER = {"order_seed": "seed", "block_rows": "block_rows", "buffer_rows": "buffer_rows"}


@dataclass(frozen=True)
class AttentiveRequest(RowsRequest):
    """What `pa probe attentive` was asked; None or empty = take it from the settings or the recipe.

    Of several values of `lr` one is chosen, by `select_split` or a part of the training images.
    `changes` are fields of the recipe, or of its order (`order_seed`, `block_rows`, `buffer_rows`).
    `memory` is in GB.
    """

    lr: tuple[float, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    seeds: int = 1
    select_split: str | None = None
    select_fraction: float = SELECT_FRACTION
    memory: float = 2.0
    resume: bool = True
    figure: Path | None = None


def probe_attentive(
    config: Config, request: AttentiveRequest, progress: Progress
) -> AttentiveResult:
    """Train and score attentive heads on stored tokens; see `pa.probe.attentive.run`.

    Two splits where train and test splits are named, else one store, divided by conditions or by
    holding out images. Raises `UsageError` for options that do not go together.
    """
    from pa.figures.curves import draw_attentive
    from pa.figures.style import check_suffix
    from pa.probe.attentive.run import run_attentive

    if request.figure is not None:
        check_suffix(request.figure)
    run = attentive_run(config, request)
    made = run_attentive(
        run.train,
        run.test,
        results=config.results,
        split_options=run.options,
        recipe=run.recipe,
        options=run.extras,
        device=run.device,
        progress=Named(progress, run.train.label),
    )
    if request.figure is not None:
        draw_attentive(made, request.figure)
    return made


@dataclass(frozen=True, eq=False)
class AttentiveRun:
    """What a request comes to: the stores, how rows are divided, and how heads are trained."""

    train: Store
    test: Store | None
    options: SplitOptions
    recipe: AttentiveRecipe
    extras: AttentiveOptions
    device: str


def attentive_run(config: Config, request: AttentiveRequest) -> AttentiveRun:
    """Look up all that a request names. Raises what `probe_attentive` raises before its work."""
    from pa.probe.attentive.run import AttentiveOptions

    if request.select_split is not None and len(request.lr) < 2:
        raise UsageError(
            "--select-split names the rows that choose between learning rates: give --lr several."
        )
    refuse_fraction_of_split(request.select_split, request.select_fraction)
    request = with_settings(config, request)
    recipe = _recipe(request)
    train, test = probe_stores(config, request)
    extras = AttentiveOptions(
        seeds=request.seeds,
        lr=request.lr,
        select_split=_select_store(config, request),
        select_fraction=request.select_fraction,
        memory=request.memory * 1e9,
        resume=request.resume,
    )
    return AttentiveRun(
        train=train,
        test=test,
        options=split_options(config, request, recipe.seed),
        recipe=recipe,
        extras=extras,
        device=device(request.device or config.settings.device),
    )


def _recipe(request: AttentiveRequest) -> AttentiveRecipe:
    from pa.probe.attentive.recipes import ATTENTIVE_PROTOCOLS, PAPER

    named = ATTENTIVE_PROTOCOLS[request.protocol] if request.protocol else PAPER
    changes = dict(request.changes)
    order = {ORDER[name]: changes.pop(name) for name in ORDER if name in changes}
    return replace(named, order=replace(named.order, **order), **changes)


def _select_store(config: Config, request: AttentiveRequest) -> Store | None:
    if request.select_split is None:
        return None
    return probe_store(config, request, request.select_split, "test")
