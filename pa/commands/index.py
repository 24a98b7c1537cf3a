"""`pa index build` and `info`; and opening an index for the commands that search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pa.commands.choose import store_query
from pa.config import Config
from pa.data import stores
from pa.data.store import Store
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.index.stored import Index


def open_index(
    config: Config, store: Store, representation: str, factory: str | None, progress: Progress
) -> Index:
    """Open a store's index, building it where it is missing, with a line that says so."""
    from pa.index.build import open_or_build
    from pa.index.stored import DEFAULT_FACTORY

    opened = open_or_build(
        store,
        representation,
        config.indexes,
        factory or DEFAULT_FACTORY,
        progress=progress,
    )
    if opened.built:
        progress.note(f"built the index of {store.title} · {representation}: {opened.reason}")
    return opened.index


@dataclass(frozen=True)
class IndexRequest:
    """What `pa index build` was asked."""

    encoder: str | None = None
    representation: str | None = None
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    store: str | None = None
    factory: str | None = None


def build_index(config: Config, request: IndexRequest, progress: Progress) -> dict[str, Any]:
    """Build the index of one store; what index.json says, and its path."""
    from pa.index.build import build
    from pa.index.stored import DEFAULT_FACTORY

    query = store_query(
        config,
        dataset=request.dataset,
        split=request.split,
        view=request.view,
        protocol=request.protocol,
        encoder=request.encoder,
        fingerprint=request.store,
    )
    store = stores.choose(config.features, query)
    representation = request.representation or config.settings.representation
    index = build(
        store,
        representation,
        config.indexes,
        request.factory or DEFAULT_FACTORY,
        progress=progress,
    )
    return {**index.info.to_json(), "path": str(index.path)}


def list_indexes(config: Config) -> list[dict[str, Any]]:
    """What index.json says, and the path, for every index of the workspace."""
    from pa.index.stored import find_indexes

    return [
        {**info.to_json(), "path": str(directory)}
        for directory, info in find_indexes(config.indexes)
    ]
