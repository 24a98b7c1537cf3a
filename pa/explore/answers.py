"""Searches of the explorer: the same functions, and so the same results, as `pa search`."""

from __future__ import annotations

import shlex
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from pa.data.datasets.imagenet import readable_label
from pa.data.schema import Box
from pa.data.store.find import StoreSelector, protocol
from pa.data.store.reader import Store
from pa.errors import PaError
from pa.explore.neighbour_shares import Share
from pa.explore.pictures import Pictures
from pa.explore.stores import Column, Gallery, OpenStores
from pa.extract.image_query import ImageQuery
from pa.index.search import Query, SearchResult, search
from pa.workspace import Workspace

if TYPE_CHECKING:
    from pa.extract.encoders import Encoder

MAX_ENCODERS = 4  # in memory at the same time


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search, as of `pa search`."""

    k: int = 24
    include_self: bool = False
    exclude_same_image: bool = False


@dataclass(frozen=True)
class Answer:
    """The neighbours of a query in one column."""

    column: str
    result: dict[str, Any]  # as in `pa search --json`, with class names instead of WordNet ids
    images: list[tuple[int, str | None]]  # number and label of the image of each neighbour
    shares: list[Share]
    seconds: float  # duration of the search


class Encoders:
    """Encode uploads with the encoders of the stores; the last ones used stay in memory."""

    def __init__(
        self, workspace: Workspace, device: str | None, checkpoints: Sequence[Path] = ()
    ) -> None:
        self._workspace = workspace
        self._device = device
        self._checkpoints = checkpoints
        self._by_fingerprint: LRUCache[str, Encoder] = LRUCache(MAX_ENCODERS)
        self._lock = threading.Lock()

    def query(self, column: Column, upload: ImageQuery) -> Query:
        """Encode the box of an upload, as `pa search --image` does.

        Raise as `Workspace.encoder_of`: for a missing checkpoint, or a network other than the
        store's.
        """
        # One at a time: two requests for a new encoder would load its weights twice.
        store = column.store
        with self._lock:
            encoder = self._by_fingerprint.get(store.fingerprint)
            if encoder is None:
                encoder = self._workspace.encoder_of(
                    store, "pa explore", checkpoints=self._checkpoints, device=self._device
                )
                self._by_fingerprint[store.fingerprint] = encoder
            vector = upload.encode(encoder, column.representation)  # (D,)
        return Query(vector=vector, path=upload.name, box=upload.box, canvas=upload.picture)


class Answers:
    """Search the columns of galleries. Thread-safe."""

    def __init__(self, stores: OpenStores, pictures: Pictures, encoders: Encoders) -> None:
        self._stores = stores
        self._pictures = pictures
        self._encoders = encoders
        self._drawing = threading.Lock()  # matplotlib's settings are global

    def neighbours(
        self, gallery: Gallery, column: Column, query: int | ImageQuery, options: SearchOptions
    ) -> Answer:
        """Return the nearest regions of a row or of an uploaded image.

        Raise as `pa.index.search.search`, `OpenStores.index` and `Encoders.query`.
        """
        began = time.perf_counter()
        result = self._search(column, query, options)
        seconds = time.perf_counter() - began
        rows = [neighbour.row for neighbour in result.neighbours]
        fields = result.to_json()
        for region in (fields["query"], *fields["neighbours"]):
            region["label"] = region["label"] and readable_label(region["label"])
        # Chance is known only if every other row could have been a neighbour.
        is_unrestricted = not options.include_self and not options.exclude_same_image
        shares = gallery.shares.of(result.query.row, rows, all_others=is_unrestricted)
        return Answer(column.id, fields, gallery.browser.images_of(rows), shares, seconds)

    def figure(
        self,
        columns: Sequence[Column],
        query: int | ImageQuery,
        options: SearchOptions,
        suffix: str,
    ) -> bytes:
        """Return the figure that `pa search --figure` draws of these columns: png, pdf or svg."""
        from pa.figures.neighbours import draw, panels_of
        from pa.figures.style import Target

        answers = [(column.store, self._search(column, query, options)) for column in columns]
        panels = panels_of(answers, self._pictures.root(columns[0].store))
        with self._drawing, tempfile.TemporaryDirectory(prefix="pa-explore-") as folder:
            path = Path(folder) / f"figure.{suffix}"
            draw(panels, Target([path]))
            return path.read_bytes()

    def _search(
        self, column: Column, query: int | ImageQuery, options: SearchOptions
    ) -> SearchResult:
        index = self._stores.index(column)
        (result,) = search(
            index,
            [query if isinstance(query, int) else self._encoders.query(column, query)],
            options.k,
            include_self=options.include_self,
            exclude_same_image=options.exclude_same_image,
        )
        return result


def search_command(
    workspace: Workspace,
    columns: Sequence[Column],
    query: int | tuple[str, Box],
    options: SearchOptions,
) -> str:
    """Return the `pa search` command with the results of these columns.

    Several stores with the same representations are one command that names their encoders, if
    these names select them; otherwise each store is a line.
    """
    by_store: dict[Path, list[Column]] = {}
    for column in columns:
        by_store.setdefault(column.store.path, []).append(column)
    stores = [group[0].store for group in by_store.values()]
    names = [",".join(column.representation for column in group) for group in by_store.values()]
    if len(set(names)) == 1 and all(_is_selected_by_names(workspace, store) for store in stores):
        spec, rules = stores[0].spec, protocol(stores[0])
        selector = ["--dataset", spec.dataset, "--split", spec.split, "--view", stores[0].view]
        selector += ["--protocol", rules] if rules else []
        encoders = ",".join(store.encoder for store in stores)
        lines = [[*selector, "--encoder", encoders, "--representation", names[0]]]
    else:
        lines = [
            ["--store", store.spec.short, "--encoder", store.encoder, "--representation", name]
            for store, name in zip(stores, names, strict=True)
        ]
    if isinstance(query, int):
        region = ["--query-id", str(query)]
    else:
        image, box = query
        region = ["--image", image, "--box", ",".join(f"{value:.15g}" for value in box)]
    start = ["pa", "search", *region, "-k", str(options.k)]
    flags = ["--include-self"] * options.include_self
    flags += ["--exclude-same-image"] * options.exclude_same_image
    end = [*flags, "--workspace", str(workspace.path)]
    return "\n".join(shlex.join([*start, *line, *end]) for line in lines)


def _is_selected_by_names(workspace: Workspace, store: Store) -> bool:
    """Return whether dataset, split, view, protocol and encoder select this store alone."""
    selector = StoreSelector(
        dataset=store.spec.dataset,
        split=store.spec.split,
        view=store.view,
        protocol=protocol(store),
        encoder=store.encoder,
    )
    try:
        return workspace.store(selector).path == store.path
    except PaError:
        return False
