"""Train an approximate index on a seeded sample of its store.

The sample is read in blocks in the order of the rows, so that memory holds the sample and one
block. FAISS uses at most 256 rows per centroid of its lists and codebooks and advises 39
(`ClusteringParameters` of faiss/Clustering.h); with fewer it prints a warning for every codebook,
often hundreds. Here that is one note, and a field of index.json.

Shapes: n rows of the sample, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store.source import FeatureSource
from pa.data.vectors import unit_vectors
from pa.errors import UsageError
from pa.index.gpu import OnGpu, clustering_on
from pa.index.library import load_faiss, refusals
from pa.index.stored import Training
from pa.progress import Progress

SEED = 0  # recorded in index.json, so that a build can be repeated
ADVISED, USED = 39, 256  # rows per centroid: FAISS warns below the first, drops above the second
USUAL_BYTES, LARGEST_BYTES = 512 << 20, 2 << 30  # of a float32 sample; the latter for many lists
_WITHOUT_CENTROIDS = 256  # stands for the centroids of scalar quantisers and PCA, which have none
_BLOCK_ROWS = 8192  # rows read at a time: 12 MB of fp16 at D = 768


def train(
    faiss_index: Any,
    store: FeatureSource,
    representation: str,
    factory: str,
    progress: Progress,
    gpu: int | None = None,
) -> Training:
    """Train an index made from `factory`; on a GPU, k-means of its lists runs there.

    Raises `UsageError` if the store has fewer rows than the index has centroids, or if a vector of
    the sample is not finite.
    """
    faiss = load_faiss()
    runs = clusterings(faiss, faiss_index)
    centroids = max((run.centroids for run in runs), default=_WITHOUT_CENTROIDS)
    sample = read_sample(store, representation, sample_rows(centroids, faiss_index.d))  # (n, D)
    for run in runs:
        _check_enough(run, len(sample), store.title, representation, factory)
        run.parameters.min_points_per_centroid = 1  # FAISS's warning is our note
    for part in _parts(faiss, faiss_index):
        # It takes seconds per codebook and only helps a search by L2 distance.
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = False
    advised = ADVISED * max((run.centroids for run in runs), default=0)
    fewer = f", fewer than the {advised} that FAISS advises" if len(sample) < advised else ""
    progress.note(f"training {factory} on {len(sample)} rows of {store.title}{fewer}")
    lent = [run.lent for run in runs if run.lent is not None]
    gpu_indexes: list[OnGpu] = []  # keeps alive what FAISS only borrows
    for run in runs:
        if run.lists is not None and gpu is not None:
            gpu_indexes.append(clustering_on(gpu, run.lists.d))
            lent.append((run.lists, "clustering_index", gpu_indexes[-1].index))
    try:
        for owner, name, value in lent:
            setattr(owner, name, value)
        with refusals(factory):
            faiss_index.train(sample)
    finally:
        for owner, name, _ in lent:
            setattr(owner, name, None)
    return Training(rows=len(sample), seed=SEED, advised=advised)


def sample_rows(centroids: int, dimension: int) -> int:
    """Return the number of rows to train on: all that FAISS uses, as far as memory allows."""
    usual, largest = USUAL_BYTES // (4 * dimension), LARGEST_BYTES // (4 * dimension)
    return max(1, min(USED * centroids, max(usual, ADVISED * centroids), largest))


def read_sample(store: FeatureSource, representation: str, n: int) -> npt.NDArray[np.float32]:
    """Read unit vectors (n, D) of seeded rows, in row order; bad and zero ones are dropped.

    Raises `UsageError` if one is not finite.
    """
    rows = np.flatnonzero(store.valid)  # all rows of readable images
    if len(rows) > n:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, n, replace=False))
    sample = np.empty((len(rows), *store.shape(representation)), dtype=np.float32)  # (n, D)
    filled = 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        block_rows = rows[start : start + _BLOCK_ROWS]
        block = store.read(representation, block_rows)  # (rows, D)
        check_finite(store, representation, block, block_rows)
        usable = block[block.any(axis=1)]  # without zero vectors, which have no direction
        sample[filled : filled + len(usable)] = unit_vectors(usable)
        filled += len(usable)
    return sample[:filled]


def check_finite(
    store: FeatureSource, representation: str, block: npt.NDArray[Any], rows: npt.NDArray[np.int64]
) -> None:
    """Raise `UsageError` with the `rows` (n,) of a block (n, D) that contain NaN or infinity."""
    broken = rows[~np.isfinite(block).all(axis=1)]  # (n,) or fewer
    if len(broken):
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        raise UsageError(
            f"{representation} of {store.title} contains NaN or infinity in {len(broken)} rows: "
            f"{shown}. `pa verify` checks the store; then encode it again with --dtype fp32."
        )


@dataclass(frozen=True)
class Clustering:
    """One k-means of training; `parameters` are FAISS's `ClusteringParameters`.

    `lists` is the inverted file whose lists it finds, None for a codebook. `lent` is an object that
    FAISS only borrows during training: owner, attribute, value.
    """

    centroids: int
    parameters: Any
    lists: Any = None
    lent: tuple[Any, str, Any] | None = None


def _parts(faiss: Any, faiss_index: Any) -> Iterator[Any]:
    """Yield an index, its transforms and its inner indexes, each downcast to its class."""
    part = faiss.downcast_index(faiss_index)
    yield part
    if isinstance(part, faiss.IndexPreTransform):
        for i in range(part.chain.size()):
            yield faiss.downcast_VectorTransform(part.chain.at(i))
    for name in ("index", "base_index", "storage"):
        inner = getattr(part, name, None)
        if isinstance(inner, faiss.Index):
            yield from _parts(faiss, inner)


def clusterings(faiss: Any, faiss_index: Any) -> list[Clustering]:
    """Return every k-means that training an index runs."""
    runs: list[Clustering] = []
    for part in _parts(faiss, faiss_index):
        if isinstance(part, faiss.OPQMatrix):
            # FAISS would create a quantiser of 8 bits whose parameters cannot be set.
            codes = faiss.ProductQuantizer(part.d_out, part.M, 8)
            runs.append(Clustering(codes.ksub, codes.cp, lent=(part, "pq", codes)))
        if isinstance(part, faiss.IndexIVF):
            runs.append(Clustering(part.nlist, part.cp, lists=part))
        for name in ("pq", "rq", "prq"):
            if isinstance(part, faiss.Index) and hasattr(part, name):
                runs += _of_quantizer(faiss, getattr(part, name))
    return runs


def _of_quantizer(faiss: Any, quantizer: Any) -> Iterator[Clustering]:
    if isinstance(quantizer, faiss.ProductQuantizer):
        yield Clustering(quantizer.ksub, quantizer.cp)
    elif isinstance(quantizer, faiss.ResidualQuantizer):
        largest = max(quantizer.nbits.at(step) for step in range(quantizer.M))
        yield Clustering(1 << largest, quantizer.cp)
    elif isinstance(quantizer, faiss.ProductAdditiveQuantizer):
        for i in range(quantizer.nsplits):
            inner = faiss.downcast_AdditiveQuantizer(quantizer.subquantizer(i))
            yield from _of_quantizer(faiss, inner)


def _check_enough(run: Clustering, n: int, store: str, representation: str, factory: str) -> None:
    has = f"{store} has {n} usable {representation} rows"
    if n < run.centroids and run.lists is not None:
        raise UsageError(
            f"{factory} divides the rows into {run.centroids} lists, but {has}: at most {n} lists "
            f"can be trained. IVF{max(1, n // ADVISED)} has the {ADVISED} rows per list that FAISS "
            f"advises; SQfp16 is exact and needs no training."
        )
    if n < run.centroids:
        bits = max(1, n.bit_length() - 1)
        raise UsageError(
            f"{factory} trains codebooks of {run.centroids} entries, but {has}: at most {bits} "
            f"bits per code fit (such as PQ8x{bits}). SQfp16 is exact and needs no training."
        )
