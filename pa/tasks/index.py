"""`pa index build` and `info`; and opening an index for the commands that search."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.progress import Progress
from pa.tasks.choose import asked_encoders, choose_store, store_query

if TYPE_CHECKING:
    from pa.index.stored import Index


def open_index(
    config: Config,
    store: Store,
    representation: str,
    factory: str | None,
    progress: Progress,
    device: str = "cpu",
) -> Index:
    """Open a store's index, building it where it is missing, with a line that says so.

    On a GPU it is copied there, and searched there.
    """
    from pa.index.build import open_or_build
    from pa.index.gpu import gpu_number, to_gpu
    from pa.index.stored import DEFAULT_FACTORY

    gpu = gpu_number(device)
    opened = open_or_build(
        store,
        representation,
        config.indexes,
        factory or DEFAULT_FACTORY,
        gpu=gpu,
        progress=progress,
    )
    if opened.built:
        progress.note(f"built the index of {store.title} · {representation}: {opened.reason}")
    return opened.index if gpu is None else to_gpu(opened.index, gpu)


@dataclass(frozen=True)
class IndexRequest:
    """What `pa index build` was asked; every combination of what is listed is one store."""

    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    store: str | None = None
    factory: str | None = None
    pieces: int = 1
    device: str = "cpu"


def build_indexes(
    config: Config, request: IndexRequest, progress: Progress
) -> list[dict[str, Any]]:
    """Build the index of every store and representation asked for, one after the other.

    Memory holds one index at a time. Returns what each index.json says, and its path. All stores
    and representations are looked up before the first index is built.
    """
    from pa.index.build import build
    from pa.index.gpu import gpu_number

    gpu = gpu_number(request.device)
    work, factory = indexes_to_build(config, request)
    built = []
    for store, representation in work:
        index = build(
            store,
            representation,
            config.indexes,
            factory,
            pieces=request.pieces,
            gpu=gpu,
            progress=progress,
        )
        built.append({**index.info.to_json(), "path": str(index.path)})
    return built


def indexes_to_build(config: Config, request: IndexRequest) -> tuple[list[tuple[Store, str]], str]:
    """The stores and representations asked for, and the factory string of their indexes."""
    from pa.index.build import check_representation
    from pa.index.stored import DEFAULT_FACTORY

    representations = request.representations or (config.settings.representation,)
    work = list(itertools.product(_stores(config, request), dict.fromkeys(representations)))
    for store, representation in work:
        check_representation(store, representation)
    return work, request.factory or DEFAULT_FACTORY


def _stores(config: Config, request: IndexRequest) -> list[Store]:
    """The one store of every combination, without repetitions."""
    combinations = itertools.product(
        request.datasets or (None,),
        request.splits or (None,),
        request.views or (None,),
        request.protocols or (None,),
        asked_encoders(config, request.encoders, request.store),
    )
    found = (
        choose_store(
            config,
            store_query(
                config,
                dataset=dataset,
                split=split,
                view=view,
                protocol=protocol,
                encoder=encoder,
                fingerprint=request.store,
            ),
        )
        for dataset, split, view, protocol, encoder in combinations
    )
    return list({store.path: store for store in found}.values())


def list_indexes(config: Config) -> list[dict[str, Any]]:
    """What index.json says, and the path, for every index of the workspace."""
    from pa.index.stored import find_indexes

    stores.check_workspace(config.workspace)
    return [
        {**info.to_json(), "path": str(directory)}
        for directory, info in find_indexes(config.indexes)
    ]
