"""`pa probe linear`, with or without `--shots`: which stores and rows, then `pa.probe`."""

from __future__ import annotations

from collections.abc import Sequence
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
    usual_representation,
    with_settings,
)

if TYPE_CHECKING:
    from pa.probe.linear.fewshot import FewShotResult
    from pa.probe.linear.recipes import LinearRecipe
    from pa.probe.linear.run import LinearOptions, LinearResult
    from pa.probe.selection import SplitOptions


@dataclass(frozen=True)
class ProbeRequest(RowsRequest):
    """What `pa probe linear` was asked; None or empty = take it from the settings or the recipe.

    Several values of `lr`, `weight_decay` or `representation` need `sweep`. `changes` are fields of
    the recipe. With `shots`, heads learn from so many rows of each class, `draws` times.
    """

    lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    representation: tuple[str, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    seeds: int = 1
    sweep: bool = False
    select_split: str | None = None
    select_fraction: float = SELECT_FRACTION
    references: bool | None = None
    shots: tuple[int, ...] = ()
    draws: int = 5
    figure: Path | None = None


def probe_linear(
    config: Config, request: ProbeRequest, progress: Progress
) -> LinearResult | FewShotResult:
    """Train and score linear heads on stored features; see `pa.probe.linear`.

    Two splits where train and test splits are named, else one store, divided by conditions or by
    holding out images. Raises `UsageError` for options that do not go together.
    """
    from pa.figures.curves import draw_fewshot, draw_linear
    from pa.figures.style import check_suffix
    from pa.probe.linear.fewshot import run_fewshot
    from pa.probe.linear.run import run_linear

    if request.figure is not None:
        check_suffix(request.figure)
    run = linear_run(config, request)
    common: dict[str, Any] = {
        "results": config.results,
        "representation": run.representation,
        "split_options": run.options,
        "recipe": run.recipe,
        "device": run.device,
        "progress": Named(progress, run.train.label),
    }
    if request.shots:
        few = run_fewshot(
            run.train,
            run.test,
            shots=request.shots,
            draws=request.draws,
            **common,
        )
        if request.figure is not None:
            draw_fewshot(few, request.figure)
        return few
    made = run_linear(run.train, run.test, options=run.extras, **common)
    if request.figure is not None:
        draw_linear(made, request.figure)
    return made


@dataclass(frozen=True, eq=False)
class LinearRun:
    """What a request comes to: the stores, how rows are divided, and how heads are trained."""

    train: Store
    test: Store | None
    representation: str
    options: SplitOptions
    recipe: LinearRecipe
    extras: LinearOptions
    device: str


def linear_run(config: Config, request: ProbeRequest) -> LinearRun:
    """Look up all that a request names. Raises what `probe_linear` raises before its work."""
    _check(request)
    request = with_settings(config, request)
    recipe = _recipe(request)
    train, test = probe_stores(config, request)
    return LinearRun(
        train=train,
        test=test,
        representation=(request.representation or (usual_representation(train),))[0],
        options=split_options(config, request, recipe.seed),
        recipe=recipe,
        extras=_options(config, request, recipe, train),
        device=device(request.device or config.settings.device),
    )


def _check(request: ProbeRequest) -> None:
    several = [
        f"--{name.replace('_', '-')} {','.join(map(str, values))}"
        for name in ("lr", "weight_decay", "representation")
        if len(values := getattr(request, name)) > 1
    ]
    if several and not request.sweep:
        raise UsageError(
            f"several values were given ({'; '.join(several)}): --sweep trains all of them and "
            f"chooses by rows that are not reported. Say --sweep, or give one value."
        )
    if request.shots and (request.sweep or request.seeds > 1):
        raise UsageError(
            "--shots trains one head for each draw of regions: it does not go with --sweep or "
            "--seeds. Say --draws N for more draws."
        )
    if request.select_split is not None and not request.sweep:
        raise UsageError("--select-split names the rows that a --sweep chooses by; say --sweep.")
    refuse_fraction_of_split(request.select_split, request.select_fraction)


def _recipe(request: ProbeRequest) -> LinearRecipe:
    from pa.probe.linear.recipes import LINEAR_PROTOCOLS, PAPER

    named = LINEAR_PROTOCOLS[request.protocol] if request.protocol else PAPER
    single: dict[str, Any] = {}
    for name in ("lr", "weight_decay"):
        values: Sequence[float] = getattr(request, name)
        if values:
            single[name] = values[0]
    changes = dict(request.changes)
    recipe = replace(named, **single, **changes)
    if "bn_eval" in changes and not recipe.batch_norm:
        raise UsageError(
            f"--bn-eval says how a BatchNorm is tested, and protocol {named.protocol} has none. "
            "Leave it out, or say --protocol imagenet-cae."
        )
    return recipe


def _options(
    config: Config, request: ProbeRequest, recipe: LinearRecipe, train: Store
) -> LinearOptions:
    from pa.probe.linear.run import LinearOptions
    from pa.probe.linear.train import Grid

    grid, select = None, None
    if request.sweep:
        grid = Grid(
            representation=request.representation or (usual_representation(train),),
            lr=request.lr or (recipe.lr,),
            weight_decay=request.weight_decay or (recipe.weight_decay,),
            seeds=tuple(range(recipe.seed, recipe.seed + request.seeds)),
        )
    if request.select_split is not None:
        select = probe_store(config, request, request.select_split, "test")
    return LinearOptions(
        seeds=request.seeds,
        grid=grid,
        select_split=select,
        select_fraction=request.select_fraction,
        references=request.references,
    )
