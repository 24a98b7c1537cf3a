"""Answers to queries: by the functions, and so to the bit, of `pa search`."""

from __future__ import annotations

import shlex
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.data.crops import Crops
from pa.data.datasets.imagenet import readable_label
from pa.data.schema import Box
from pa.data.store import find
from pa.data.store.find import StoreSelector
from pa.errors import PaError
from pa.explore.neighbour_shares import Share
from pa.explore.pictures import Pictures
from pa.explore.stores import Column, Gallery, OpenStores
from pa.explore.uploads import Encoders, Upload
from pa.workspace import Workspace

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.index.search import SearchResult


@dataclass(frozen=True)
class SearchOptions:
    """What is options besides the query itself."""

    k: int = 24
    include_self: bool = False
    exclude_same_image: bool = False


@dataclass(frozen=True)
class Answer:
    """One column's answer.

    `result` is an object of the `results` of `pa search --json`, with names of classes in place of
    wnids. `images` are number and label of the image of each neighbour; `seconds` is what the
    search took.
    """

    column: str
    result: dict[str, Any]
    images: list[tuple[int, str | None]]
    shares: list[Share]
    seconds: float


class Answers:
    """Searches the columns of galleries. All methods are for any number of threads."""

    def __init__(self, galleries: OpenStores, pictures: Pictures, encoders: Encoders) -> None:
        self._galleries = galleries
        self._pictures = pictures
        self._encoders = encoders
        self._drawing = threading.Lock()  # matplotlib's settings are global

    def neighbours(
        self, gallery: Gallery, column: Column, query: int | Upload, options: SearchOptions
    ) -> Answer:
        """The nearest regions of a row, or of a box in an image of one's own.

        Raises what `pa.index.search.search`, `OpenStores.index` and `Encoders.query` raise.
        """
        began = time.perf_counter()
        result = self._search(column, query, options)
        seconds = time.perf_counter() - began
        rows = [neighbour.row for neighbour in result.neighbours]
        usual = not options.include_self and not options.exclude_same_image
        return Answer(
            column=column.id,
            result=_with_readable_labels(result.to_json()),
            images=gallery.browser.images_of(rows),
            shares=gallery.shares.of(result.query.row, rows, all_others=usual),
            seconds=seconds,
        )

    def figure(
        self, columns: Sequence[Column], query: int | Upload, options: SearchOptions, suffix: str
    ) -> bytes:
        """The figure that `pa search --figure` draws of these columns: a png, pdf or svg."""
        from pa.figures.neighbours import draw

        answers: list[tuple[Store, SearchResult]] = [
            (column.store, self._search(column, query, options)) for column in columns
        ]
        with self._drawing, tempfile.TemporaryDirectory(prefix="pa-explore-") as folder:
            place = Path(folder) / f"figure.{suffix}"
            root = self._pictures.root(columns[0].store)
            crops = {store.path: Crops(store, root) for store, _ in answers}
            draw([result for _, result in answers], [crops[s.path] for s, _ in answers], place)
            return place.read_bytes()

    def _search(self, column: Column, query: int | Upload, options: SearchOptions) -> SearchResult:
        from pa.index.search import search

        index = self._galleries.index(column)
        return search(
            index,
            [query if isinstance(query, int) else self._encoders.query(column, query)],
            options.k,
            include_self=options.include_self,
            exclude_same_image=options.exclude_same_image,
        )[0]


# -- the same on the command line -------------------------------------------------------------


def search_command(
    workspace: Workspace,
    columns: Sequence[Column],
    query: int | tuple[str, Box],
    options: SearchOptions,
) -> str:
    """The `pa search` command, or one per line, that asks the same of these columns."""
    by_store: dict[Path, list[Column]] = {}
    for column in columns:
        by_store.setdefault(column.store.path, []).append(column)
    groups = list(by_store.values())
    names = [[column.representation for column in group] for group in groups]
    chosen = [group[0].store for group in groups]
    together = all(name == names[0] for name in names) and all(
        _is_chosen_by_names(workspace, store) for store in chosen
    )
    if together:
        encoders = ",".join(store.encoder for store in chosen)
        return _command(
            workspace, [*_names(chosen[0]), "--encoder", encoders], names[0], query, options
        )
    return "\n".join(
        _command(
            workspace,
            ["--store", store.spec.short, "--encoder", store.encoder],
            representations,
            query,
            options,
        )
        for store, representations in zip(chosen, names, strict=True)
    )


def _names(store: Store) -> list[str]:
    rules = find.protocol(store)
    return [
        *("--dataset", store.spec.dataset, "--split", store.spec.split, "--view", store.view),
        *(("--protocol", rules) if rules else ()),
    ]


def _is_chosen_by_names(workspace: Workspace, store: Store) -> bool:
    """Whether dataset, split, view, protocol and encoder mean this store and no other."""
    selector = StoreSelector(
        dataset=store.spec.dataset,
        split=store.spec.split,
        view=store.view,
        protocol=find.protocol(store),
        encoder=store.encoder,
    )
    try:
        return workspace.store(selector).path == store.path
    except PaError:
        return False


def _command(
    workspace: Workspace,
    which: Sequence[str],
    representations: Sequence[str],
    query: int | tuple[str, Box],
    options: SearchOptions,
) -> str:
    if isinstance(query, int):
        words = ["--query-id", str(query)]
    else:
        name, box = query
        words = ["--image", name, "--box", ",".join(f"{value:.15g}" for value in box)]
    flags = ["--include-self"] * options.include_self
    flags += ["--exclude-same-image"] * options.exclude_same_image
    return shlex.join(
        [
            *("pa", "search", *words, "-k", str(options.k), *which),
            *("--representation", ",".join(representations), *flags),
            *("--workspace", str(workspace.path)),
        ]
    )


def _with_readable_labels(result: dict[str, Any]) -> dict[str, Any]:
    """The result with names of classes in place of wnids."""
    for region in (result["query"], *result["neighbours"]):
        region["label"] = region["label"] and readable_label(region["label"])
    return result
