"""What the probes ask of a workspace alike: which stores, which rows, by which protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from pa.config import Config
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.errors import MissingError, UsageError
from pa.probe.recipes import PART_STORES
from pa.probe.selection import SplitOptions
from pa.tasks.choose import choose_store, store_query

USUAL = "paper"
SELECT_FRACTION = 0.2


@dataclass(frozen=True)
class RowsRequest:
    """Which rows train and which are tested; None = take it from the settings.

    `protocol` names the recipe and, for view `parts`, the protocols of its two stores.
    """

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
    test_fraction: float = 0.2
    protocol: str | None = None
    device: str | None = None


R = TypeVar("R", bound=RowsRequest)


def with_settings(config: Config, request: R) -> R:
    """Fill up from the settings: [probe], unless a flag already says how rows are divided, and the
    dataset's protocol. Raises `UsageError` where one of two splits is named."""
    dividing = ("train_split", "test_split", "train_where", "test_where")
    if all(getattr(request, name) is None for name in dividing):
        request = replace(
            request, **{name: getattr(config.settings.probe, name) for name in dividing}
        )
    if (request.train_split is None) != (request.test_split is None):
        raise UsageError(
            "only one of --train-split and --test-split was given: name both, or neither."
        )
    entry = config.settings.datasets.get(request.dataset or config.settings.dataset or "")
    if request.protocol is None and entry is not None and entry.protocol in PART_STORES:
        request = replace(request, protocol=entry.protocol)
    return request


def probe_stores(config: Config, request: RowsRequest) -> tuple[Store, Store | None]:
    """The training store and, where two splits are named, the test store.

    Of view `parts` they are those that the protocol pairs; without a protocol those of `paper`,
    where there are any, and never those of another recipe.
    """
    if request.train_split and request.test_split:
        train = probe_store(config, request, request.train_split, "train")
        return train, probe_store(config, request, request.test_split, "test")
    return probe_store(config, request, request.split, "test"), None


def probe_store(config: Config, request: RowsRequest, split: str | None, role: str) -> Store:
    """The store of a split that fits the request; `role` "train" or "test" is its part in the
    recipe. Raises as `stores.choose`, and `UsageError` for stores of a recipe not asked for."""
    pair = PART_STORES.get(request.protocol or "")
    if pair is not None or request.store is not None:
        return _choose(config, request, split, getattr(pair, role) if pair else None)
    try:
        return _choose(config, request, split, USUAL)
    except MissingError:
        store = _choose(config, request, split, None)
    found = stores.protocol(store)
    for name, other in PART_STORES.items():
        if name != USUAL and found in (other.train, other.test):
            raise UsageError(
                f"{store.title} holds parts cut by protocol {found}, but the recipe is "
                f"{request.protocol or USUAL}. Say --protocol {name} for the recipe and the stores "
                f"that go with it, or extract the parts by protocol {USUAL}."
            )
    return store


def _choose(config: Config, request: RowsRequest, split: str | None, protocol: str | None) -> Store:
    query = store_query(
        config,
        dataset=request.dataset,
        split=split,
        view=request.view,
        protocol=protocol,
        encoder=request.encoder,
        fingerprint=request.store,
    )
    return choose_store(config, query)


def refuse_fraction_of_split(select_split: str | None, select_fraction: float) -> None:
    """Raise `UsageError` for a share of the training images where a whole split chooses."""
    if select_split is not None and select_fraction != SELECT_FRACTION:
        raise UsageError(
            "--select-fraction is the share of the training images that choose; with "
            "--select-split the rows of that split choose. Give one of them."
        )


def split_options(config: Config, request: RowsRequest, seed: int) -> SplitOptions:
    """How rows are divided and what is predicted, for `pa.probe.selection.split_rows`."""
    return SplitOptions(
        target=request.target or config.settings.probe.target or "label",
        where=request.where,
        train_where=request.train_where,
        test_where=request.test_where,
        test_fraction=request.test_fraction,
        seed=seed,
    )


def usual_representation(store: Store) -> str:
    """The class token, as in the paper's linear probe; the pooled mean where there is none."""
    return "cls" if "cls" in store.spec.representations else "pooled"
