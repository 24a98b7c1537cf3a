"""Build the FAISS index of one representation of a store.

The vectors are L2-normalised, so the inner product that FAISS ranks by is the cosine. The default
is the fp16 scalar quantiser: half the size of a flat index and about four times as fast on a CPU;
`pa.index.search` makes its answers exact.

Shapes: N rows of the store, n rows of a block, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.files import write_json
from pa.data.store import Store
from pa.errors import FingerprintError, MissingError, UsageError
from pa.index.library import complaint, load_faiss
from pa.index.recall import measure_recall
from pa.index.stored import (
    DEFAULT_FACTORY,
    EXACT_FACTORIES,
    IDS,
    INDEX,
    INFO,
    Index,
    IndexInfo,
    IndexKey,
    checksum,
    open_index,
    publishing,
)
from pa.index.vectors import unit_vectors
from pa.progress import Progress, Silent

__all__ = ["Opened", "build", "open_index", "open_or_build"]

# k-means in FAISS uses at most 256 vectors per centroid; this is enough for 4,096 lists at the 39
# it asks for at least, and 400 MB at D = 768.
TRAINING_ROWS = 160_000
TRAINING_SEED = 0

EXAMPLES = (
    "Examples: SQfp16 and Flat (exact), IVF256,Flat@nprobe=16 (faster), HNSW32 (faster still, "
    "larger), PQ32 (far smaller)."
)


@dataclass(frozen=True)
class Opened:
    """An index, whether it was built just now, and why ("" where it was not)."""

    index: Index
    built: bool
    reason: str


def open_or_build(
    store: Store,
    representation: str,
    indexes_root: Path | str,
    factory: str = DEFAULT_FACTORY,
    *,
    verify: bool | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Open the index, or build it where there is none or where it is not what it should be."""
    load_faiss()  # a missing package is not a missing index
    check_representation(store, representation)
    try:
        index = open_index(store, representation, indexes_root, factory, verify=verify)
        return Opened(index, built=False, reason="")
    except MissingError:
        reason = "first use"
    except FingerprintError as error:
        reason = str(error)
    return Opened(
        build(store, representation, indexes_root, factory, progress=progress), True, reason
    )


def build(
    store: Store,
    representation: str,
    indexes_root: Path | str,
    factory: str = DEFAULT_FACTORY,
    *,
    progress: Progress | None = None,
) -> Index:
    """Build an index, replacing the one that is there.

    `factory` is a FAISS factory string; search parameters may follow an @, for instance
    "IVF256,Flat@nprobe=16". The store is read a block at a time: memory holds the index and one
    block.

    Raises `UsageError` for a representation that is not one vector per row, a factory string that
    FAISS refuses, vectors that are not finite, or a store without a single usable row.
    """
    faiss = load_faiss()
    dimension = check_representation(store, representation)
    faiss_index = _make(faiss, dimension, factory)
    directory = IndexKey(store.fingerprint, representation, factory).directory(indexes_root)
    with publishing(directory) as partial:
        if not faiss_index.is_trained:
            _train(faiss_index, store, representation, factory)
        filled = _fill(faiss_index, store, representation, factory, progress or Silent())
        info = IndexInfo(
            fingerprint=store.fingerprint,
            store=store.title,
            representation=representation,
            factory=factory,
            n=filled.n,
            dimension=dimension,
            n_bad=filled.n_bad,
            n_zero=filled.n_zero,
            recall_at_24="exact",
            files={},
            faiss=faiss.__version__,
        )
        index = Index(partial, info, store, faiss_index, filled.ids)
        if factory not in EXACT_FACTORIES:
            index = replace(index, info=replace(info, recall_at_24=measure_recall(index)))
        _write(faiss, index)
    return open_index(store, representation, indexes_root, factory, verify=False)


def check_representation(store: Store, representation: str) -> int:
    """The width of a representation that is one vector per row.

    Raises `UnknownNameError` where it is not stored, `UsageError` where it is not a vector.
    """
    shape = store.shape(representation)
    if len(shape) == 1:
        return shape[0]
    vectors = [name for name, s in store.spec.representations.items() if len(s) == 1]
    raise UsageError(
        f"{representation} of {store.title} has the shape {'×'.join(map(str, shape))} per row; an "
        f"index takes one vector per row. Choose {' or '.join(vectors) or 'another store'}."
    )


@contextlib.contextmanager
def _refusals(factory: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UsageError(
            f"FAISS refuses the index factory {factory!r}: {complaint(error)}. {EXAMPLES}"
        ) from None


def _make(faiss: Any, dimension: int, factory: str) -> Any:
    """An empty index, with the search parameters set that follow an @."""
    description, _, parameters = factory.partition("@")
    with _refusals(factory):
        faiss_index = faiss.index_factory(dimension, description, faiss.METRIC_INNER_PRODUCT)
        if parameters:
            faiss.ParameterSpace().set_index_parameters(faiss_index, parameters)
    return faiss_index


def _train(faiss_index: Any, store: Store, representation: str, factory: str) -> None:
    rows = np.flatnonzero(store.valid)
    if len(rows) > TRAINING_ROWS:
        generator = np.random.default_rng(TRAINING_SEED)
        rows = np.sort(generator.choice(rows, TRAINING_ROWS, replace=False))
    sample = store.read(representation, rows)
    _check_finite(store, representation, sample, rows)
    with _refusals(factory):
        faiss_index.train(unit_vectors(sample[sample.any(axis=1)]))


@dataclass
class _Filled:
    """What went into an index: n rows, their ids (None where all rows did), what was left out."""

    n: int = 0
    n_bad: int = 0
    n_zero: int = 0
    kept: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def take(
        self, rows: npt.NDArray[np.int64], block: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Count a block; which of its rows (n,) have a cosine: those of an image, and not zero."""
        nonzero = block.any(axis=1)
        usable: npt.NDArray[np.bool_] = valid & nonzero
        self.n += int(usable.sum())
        self.n_bad += int((~valid).sum())
        self.n_zero += int((valid & ~nonzero).sum())
        self.kept.append(rows[usable])
        return usable

    @property
    def ids(self) -> npt.NDArray[np.int64] | None:
        return np.concatenate(self.kept) if self.n_bad or self.n_zero else None


def _fill(
    faiss_index: Any, store: Store, representation: str, factory: str, progress: Progress
) -> _Filled:
    filled = _Filled()
    progress.start(f"index of {store.title} · {representation}", store.n_rows, "rows")
    try:
        for first, block in store.blocks(representation):
            rows = np.arange(first, first + len(block))
            _check_finite(store, representation, block, rows)
            with _refusals(factory):
                faiss_index.add(unit_vectors(block[filled.take(rows, block, store.valid[rows])]))
            progress.advance(len(block))
    finally:
        progress.stop()
    if not filled.n:
        raise UsageError(
            f"{store.title} has no row to index: {filled.n_bad} rows belong to images that could "
            f"not be decoded, {filled.n_zero} have a zero {representation} vector."
        )
    return filled


def _check_finite(
    store: Store, representation: str, block: npt.NDArray[Any], rows: npt.NDArray[np.int64]
) -> None:
    broken = rows[~np.isfinite(block).all(axis=1)]
    if len(broken):
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        raise UsageError(
            f"{representation} of {store.title} holds NaN or infinity in {len(broken)} rows: "
            f"{shown}. `pa verify` checks the store; then encode it again with --dtype fp32."
        )


def _write(faiss: Any, index: Index) -> None:
    """Write the files of an index into its directory, index.json last."""
    faiss.write_index(index.faiss_index, str(index.path / INDEX))
    if index.ids is not None:
        np.save(index.path / IDS, index.ids)
    files = {
        file.name: {"bytes": file.stat().st_size, "xxh3_128": checksum(file)}
        for file in sorted(index.path.iterdir())
    }
    write_json(index.path / INFO, replace(index.info, files=files).to_json())
