"""`pa probe linear`: which stores and rows, then `pa.probe.linear`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pa.commands.choose import device, store_query
from pa.config import Config
from pa.data import stores
from pa.data.store import Store
from pa.errors import UsageError
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.probe.linear import LinearResult


@dataclass(frozen=True)
class ProbeRequest:
    """What `pa probe` was asked; None = take it from the settings."""

    dataset: str | None = None
    view: str | None = None
    encoder: str | None = None
    store: str | None = None
    split: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_where: str | None = None
    test_where: str | None = None
    where: str | None = None
    target: str | None = None
    representation: str | None = None
    test_fraction: float = 0.2
    protocol: str | None = None
    changes: tuple[tuple[str, Any], ...] = ()
    device: str | None = None


def probe_linear(config: Config, request: ProbeRequest, progress: Progress) -> LinearResult:
    """Train and score a linear head on stored features; see `pa.probe.linear`.

    Two splits where train and test splits are named, else one store, divided by conditions or by
    holding out images.
    """
    from pa.probe.linear import LINEAR_PROTOCOLS, run_linear
    from pa.probe.selection import SplitOptions

    request = _with_probe_settings(config, request)
    if (request.train_split is None) != (request.test_split is None):
        raise UsageError(
            "only one of --train-split and --test-split was given: name both, or neither."
        )
    train = _probe_store(config, request, request.train_split or request.split)
    test = _probe_store(config, request, request.test_split) if request.test_split else None
    recipe = replace(LINEAR_PROTOCOLS[request.protocol or "paper"], **dict(request.changes))
    options = SplitOptions(
        target=request.target or config.settings.probe.target or "label",
        where=request.where,
        train_where=request.train_where,
        test_where=request.test_where,
        test_fraction=request.test_fraction,
        seed=recipe.seed,
    )
    return run_linear(
        train,
        test,
        results=config.results,
        representation=request.representation or _probe_representation(train),
        options=options,
        recipe=recipe,
        device=device(request.device or config.settings.device),
        progress=progress,
    )


def _with_probe_settings(config: Config, request: ProbeRequest) -> ProbeRequest:
    """Fill up with [probe] of pa.toml, unless a flag already says how rows are divided."""
    dividing = ("train_split", "test_split", "train_where", "test_where")
    if any(getattr(request, name) is not None for name in dividing):
        return request
    return replace(request, **{name: getattr(config.settings.probe, name) for name in dividing})


def _probe_store(config: Config, request: ProbeRequest, split: str | None) -> Store:
    query = store_query(
        config,
        dataset=request.dataset,
        split=split,
        view=request.view,
        protocol=request.protocol,
        encoder=request.encoder,
        fingerprint=request.store,
    )
    return stores.choose(config.features, query)


def _probe_representation(store: Store) -> str:
    """The class token, as in the paper's linear probe; the pooled mean where there is none."""
    return "cls" if "cls" in store.spec.representations else "pooled"
