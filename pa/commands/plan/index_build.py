"""`pa plan index build`: sizes of indexes from their FAISS factory strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pa.commands import options
from pa.commands.index.build import index_factory, index_pieces, selection
from pa.commands.plan.work import WorkItem, report

if TYPE_CHECKING:
    from pa.commands.index.build import IndexSelector
    from pa.data.store.reader import Store
    from pa.workspace import Workspace

ID_BYTES, LINK_BYTES = 8, 4  # int64 row ids and int32 graph links of FAISS
INFO_BYTES = 600  # index.json and headers, measured
BLOCK_ROWS = 8_192  # about as many rows are held as float32 vectors while they are added


@click.command()
@selection
@index_factory
@index_pieces
@options.as_json
@options.workspace
def build(
    workspace: Workspace,
    selector: IndexSelector,
    factory: str | None,
    pieces: int,
    as_json: bool,
) -> None:
    """Report the bytes, files and memory of building indexes.

    They are computed from shapes. An index records no time, so the time is unknown. Exit code 1
    means that the disk or the memory is too small.
    """
    from pa.index.stored import DEFAULT_FACTORY

    items = [
        plan_index(store, representation, factory or DEFAULT_FACTORY, pieces)
        for store, representation in selector.resolve(workspace)
    ]
    report(items, workspace.config.indexes, as_json)


def plan_index(store: Store, representation: str, factory: str, pieces: int = 1) -> WorkItem:
    """Plan the build of one index. Raises `UsageError` as `pa.index.build.build` does."""
    from pa.index.build import check_representation, make
    from pa.index.library import load_faiss
    from pa.index.training import clusterings, sample_rows

    faiss = load_faiss()
    width = check_representation(store, representation)
    index = make(faiss, width, factory)
    kmeans = clusterings(faiss, index)
    tables = sum(4 * width * clustering.centroids for clustering in kmeans)  # float32
    samples = [sample_rows(clustering.centroids, width) for clustering in kmeans]
    sample_bytes = 4 * width * min(store.n_rows, max(samples, default=0))
    row = row_bytes(faiss, index)
    piece_bytes = row * -(-store.n_rows // pieces)
    return WorkItem(
        what=f"{factory} · {store.title} · {representation}",
        rows=store.n_rows,
        files=2 + (pieces > 1) + bool(store.bad),
        bytes=store.n_rows * row + tables + INFO_BYTES,
        memory=max(piece_bytes + tables, sample_bytes) + 4 * width * min(store.n_rows, BLOCK_ROWS),
        seconds=None,
    )


def row_bytes(faiss: Any, index: Any) -> int:
    """Return the bytes of a row in an index: its code, its id in a list, its links in a graph."""
    part = faiss.downcast_index(index)
    if isinstance(part, faiss.IndexPreTransform):
        return row_bytes(faiss, part.index)
    if isinstance(part, faiss.IndexIVF):
        return int(part.code_size) + ID_BYTES
    if isinstance(part, faiss.IndexHNSW):
        links = int(part.hnsw.cum_nneighbor_per_level.at(1))  # on the lowest level
        return int(part.storage.sa_code_size()) + LINK_BYTES * (links + 1) + ID_BYTES
    return int(part.sa_code_size())
