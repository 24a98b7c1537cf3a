"""What an index will take, reckoned from short measurements on this machine.

Shapes: N rows of the store, n rows of a sample, D width, K lists or codebook entries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store.store import Store
from pa.data.vectors import unit_vectors
from pa.index.build import check_representation, make
from pa.index.library import load_faiss
from pa.index.recall import RECALL_QUERIES
from pa.index.stored import DEFAULT_FACTORY, EXACT_FACTORIES
from pa.index.training import clusterings, sample_rows

SAMPLE_ROWS, SAMPLE_LISTS = 8192, 256
ID_BYTES, LINK_BYTES = 8, 4
OTHER_FILES_BYTES = 600  # index.json, and headers


@dataclass(frozen=True)
class BuildForecast:
    """`bytes` of the index on disk, `memory` while it is built, `seconds` on this machine's CPU."""

    bytes: int
    memory: int
    seconds: float


def forecast_build(
    store: Store, representation: str, factory: str = DEFAULT_FACTORY, pieces: int = 1
) -> BuildForecast:
    """Reckon the build of one index.

    Timed are reading, normalising and adding up to 8,192 rows, and one comparison of these rows
    with 256 centroids; what k-means, finding a row's list and measuring the recall take follows
    from the number of comparisons. Raises `UsageError` as `pa.index.build.build` does.
    """
    faiss = load_faiss()
    dimension = check_representation(store, representation)
    index = make(faiss, dimension, factory)
    n = store.n_rows
    rows = np.arange(min(n, SAMPLE_ROWS))
    read = _seconds(lambda: unit_vectors(store.read(representation, rows))) / len(rows)
    sample = unit_vectors(store.read(representation, rows))
    # What needs training cannot take rows yet: its codes cost about what scalar ones do.
    target = index if index.is_trained else make(faiss, dimension, DEFAULT_FACTORY)
    add = _seconds(lambda: target.add(sample)) / len(rows)
    seconds = n * (read + add)
    memory = _row_bytes(faiss, index) * -(-n // pieces)
    whole = _comparison(faiss, sample)
    found = clusterings(faiss, index)
    tables = sum(4 * dimension * one.centroids for one in found)
    trained_on = 0
    for one in found:
        compare = _comparison(faiss, sample[:, : dimension // one.parts]) * one.parts
        trained_on = max(trained_on, min(n, sample_rows(one.centroids, dimension)))
        used = min(trained_on, one.centroids * one.parameters.max_points_per_centroid)
        # K-means, then the nearest centroids of every row.
        seconds += (one.parameters.niter * used + n) * one.centroids * compare
    seconds += trained_on * read
    if factory not in EXACT_FACTORIES:
        seconds += n * (read + min(n, RECALL_QUERIES) * whole)
    held = max(memory + tables, 4 * dimension * trained_on) + 4 * dimension * len(rows)
    return BuildForecast(n * _row_bytes(faiss, index) + tables + OTHER_FILES_BYTES, held, seconds)


def _row_bytes(faiss: Any, index: Any) -> int:
    """Of one row: its code, its id in a list, its links in a graph."""
    part = faiss.downcast_index(index)
    if isinstance(part, faiss.IndexPreTransform):
        return _row_bytes(faiss, part.index)
    if isinstance(part, faiss.IndexIVF):
        return int(part.code_size) + ID_BYTES
    if isinstance(part, faiss.IndexHNSW):
        links = part.hnsw.cum_nneighbor_per_level.at(1)
        code = int(part.storage.sa_code_size())
        return code + LINK_BYTES * int(links) + ID_BYTES + LINK_BYTES
    return int(part.sa_code_size())


def _comparison(faiss: Any, sample: npt.NDArray[np.float32]) -> float:
    """Seconds to compare one row with one centroid."""
    sample = np.ascontiguousarray(sample)
    lists = faiss.IndexFlatIP(sample.shape[1])
    lists.add(np.resize(sample, (SAMPLE_LISTS, sample.shape[1])))
    lists.search(sample[:SAMPLE_LISTS], 1)  # the first call starts the threads
    return _seconds(lambda: lists.search(sample, 1)) / (len(sample) * SAMPLE_LISTS)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
