"""Training an approximate index on a seeded sample of its store.

The sample is read in blocks in the order of the rows, so memory holds the sample and one block. Of
lists and codebooks FAISS uses at most 256 rows per centroid and advises 39 (`ClusteringParameters`
of faiss/Clustering.h); where there are fewer it prints a warning for every codebook, often
hundreds. Here it is one note, and a field of index.json.

Shapes: n rows of the sample, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store.store import Store
from pa.data.vectors import unit_vectors
from pa.errors import UsageError
from pa.index.gpu import clustering_on
from pa.index.library import load_faiss, refusals
from pa.index.stored import Training
from pa.progress import Progress

SEED = 0
# Rows per centroid: fewer than the first and FAISS warns, more than the second and it leaves out.
ADVISED, USED = 39, 256
# Size of a sample in float32; up to the second only where that many lists need it.
USUAL_BYTES, LARGEST_BYTES = 512 << 20, 2 << 30
# For what has no centroids: scalar quantisers, PCA.
_WITHOUT_CENTROIDS = 256
_BLOCK_ROWS = 8192


def train(
    faiss_index: Any,
    store: Store,
    representation: str,
    factory: str,
    progress: Progress,
    gpu: int | None = None,
) -> Training:
    """Train an index made from `factory`, k-means of its lists on a GPU where one is given.

    Raises `UsageError` where the store has fewer rows than the index has centroids, or where a
    vector of the sample is not finite.
    """
    faiss = load_faiss()
    parts = list(_parts(faiss, faiss_index))
    found = clusterings(faiss, faiss_index)
    centroids = max((one.centroids for one in found), default=_WITHOUT_CENTROIDS)
    sample = read_sample(store, representation, sample_rows(centroids, faiss_index.d))
    for one in found:
        _check_enough(one, len(sample), store, representation, factory)
        one.parameters.min_points_per_centroid = 1
    for part in parts:
        # Seconds per codebook, and of use only to a search by L2 distance.
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = False
    advised = max((ADVISED * one.centroids for one in found), default=0)
    fewer = f", fewer than the {advised} that FAISS advises" if len(sample) < advised else ""
    progress.note(f"training {factory} on {len(sample)} rows of {store.title}{fewer}")
    with contextlib.ExitStack() as during:
        for one in found:
            during.enter_context(one.in_force(gpu))
        during.enter_context(refusals(factory))
        faiss_index.train(sample)
    return Training(rows=len(sample), seed=SEED, advised=advised)


def sample_rows(centroids: int, dimension: int) -> int:
    """How many rows to train on: all that FAISS uses, as far as memory allows."""
    usual, largest = USUAL_BYTES // (4 * dimension), LARGEST_BYTES // (4 * dimension)
    return max(1, min(USED * centroids, max(usual, ADVISED * centroids), largest))


def read_sample(store: Store, representation: str, n: int) -> npt.NDArray[np.float32]:
    """Read unit vectors (n, D) of seeded rows, in row order; fewer where some are bad or zero.

    Raises `UsageError` where one is not finite.
    """
    rows = np.flatnonzero(store.valid)
    if len(rows) > n:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, n, replace=False))
    sample = np.empty((len(rows), *store.shape(representation)), dtype=np.float32)
    filled = 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        wanted = rows[start : start + _BLOCK_ROWS]
        block = store.read(representation, wanted)
        check_finite(store, representation, block, wanted)
        usable = block[block.any(axis=1)]
        sample[filled : filled + len(usable)] = unit_vectors(usable)
        filled += len(usable)
    return sample[:filled]


def check_finite(
    store: Store, representation: str, block: npt.NDArray[Any], rows: npt.NDArray[np.int64]
) -> None:
    """Raise `UsageError` naming the `rows` (n,) of a block (n, D) that hold NaN or infinity."""
    broken = rows[~np.isfinite(block).all(axis=1)]
    if len(broken):
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        raise UsageError(
            f"{representation} of {store.title} holds NaN or infinity in {len(broken)} rows: "
            f"{shown}. `pa verify` checks the store; then encode it again with --dtype fp32."
        )


@dataclass(frozen=True)
class Clustering:
    """One k-means that training runs, in `parts` of the width: `centroids`, and FAISS's own
    parameters of it.

    `lists` is the inverted file whose lists it finds, None where it finds a codebook. A quantiser
    made for an OPQ rotation is lent to `rotation` while it trains.
    """

    centroids: int
    parameters: Any
    lists: Any = None
    rotation: Any = None
    quantizer: Any = None
    parts: int = 1

    @contextlib.contextmanager
    def in_force(self, gpu: int | None) -> Iterator[None]:
        """Lend FAISS what is ours for the time of the training."""
        if self.rotation is not None:
            self.rotation.pq = self.quantizer
        if self.lists is not None and gpu is not None:
            # Python keeps the object alive: FAISS only borrows it.
            on_gpu = clustering_on(gpu, self.lists.d)
            self.lists.clustering_index = on_gpu.index
        try:
            yield
        finally:
            if self.rotation is not None:
                self.rotation.pq = None
            if self.lists is not None and gpu is not None:
                self.lists.clustering_index = None


def _parts(faiss: Any, faiss_index: Any) -> Iterator[Any]:
    """The index, the transforms before it and the indexes inside it, each as its own class."""
    part = faiss.downcast_index(faiss_index)
    yield part
    if isinstance(part, faiss.IndexPreTransform):
        for place in range(part.chain.size()):
            yield faiss.downcast_VectorTransform(part.chain.at(place))
    for name in ("index", "base_index", "storage"):
        inner = getattr(part, name, None)
        if isinstance(inner, faiss.Index):
            yield from _parts(faiss, inner)


def clusterings(faiss: Any, faiss_index: Any) -> list[Clustering]:
    """Every k-means that training an index runs."""
    parts = _parts(faiss, faiss_index)
    return [one for part in parts for one in _clusterings(faiss, part)]


def _clusterings(faiss: Any, part: Any) -> Iterator[Clustering]:
    """Every k-means that training runs for one part of an index."""
    if isinstance(part, faiss.OPQMatrix):
        # FAISS would make a quantiser of 8 bits whose parameters are out of reach.
        quantizer = faiss.ProductQuantizer(part.d_out, part.M, 8)
        yield Clustering(
            quantizer.ksub, quantizer.cp, rotation=part, quantizer=quantizer, parts=quantizer.M
        )
    if isinstance(part, faiss.IndexIVF):
        yield Clustering(part.nlist, part.cp, lists=part)
    for name in ("pq", "rq", "prq"):
        if isinstance(part, faiss.Index) and hasattr(part, name):
            yield from _of_quantizer(faiss, getattr(part, name))


def _of_quantizer(faiss: Any, quantizer: Any) -> Iterator[Clustering]:
    if isinstance(quantizer, faiss.ProductQuantizer):
        yield Clustering(quantizer.ksub, quantizer.cp, parts=quantizer.M)
    elif isinstance(quantizer, faiss.ResidualQuantizer):
        largest = max(quantizer.nbits.at(step) for step in range(quantizer.M))
        yield Clustering(1 << largest, quantizer.cp)
    elif isinstance(quantizer, faiss.ProductAdditiveQuantizer):
        for place in range(quantizer.nsplits):
            inner = faiss.downcast_AdditiveQuantizer(quantizer.subquantizer(place))
            yield from _of_quantizer(faiss, inner)


def _check_enough(one: Clustering, n: int, store: Store, representation: str, factory: str) -> None:
    if n >= one.centroids:
        return
    has = f"{store.title} has {n} usable {representation} rows"
    if one.lists is not None:
        raise UsageError(
            f"{factory} divides the rows into {one.centroids} lists, but {has}: at most {n} lists "
            f"can be trained. IVF{max(1, n // ADVISED)} has the {ADVISED} rows a list that FAISS "
            f"advises; SQfp16 is exact and needs no training."
        )
    raise UsageError(
        f"{factory} trains codebooks of {one.centroids} entries, but {has}: at most "
        f"{max(1, n.bit_length() - 1)} bits a code fit (such as PQ8x{max(1, n.bit_length() - 1)}). "
        f"SQfp16 is exact and needs no training."
    )
