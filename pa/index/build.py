"""Build the FAISS index of one representation of a store.

The vectors are L2-normalised, so that FAISS's inner product is the cosine. The default is the fp16
scalar quantiser: half the size of a flat index and about four times as fast on a CPU;
`pa.index.ranking` makes its answers exact.

Shapes: N rows of the store, n rows of a block, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.files import write_json
from pa.data.store import checksums
from pa.data.store.reader import Store
from pa.data.vectors import unit_vectors
from pa.errors import FingerprintError, MissingError, NewerFormatError, UsageError
from pa.index.library import load_faiss, readable_folder, refusals
from pa.index.pieces import Pieces, check_pieces
from pa.index.publish import publishing
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
    open_files,
    open_index,
)
from pa.index.training import check_finite, train
from pa.progress import Progress, Silent

__all__ = ["Opened", "build", "open_index", "open_or_build"]


@dataclass(frozen=True)
class Opened:
    """An index, whether it was just built, and why ("" if it was not)."""

    index: Index
    built: bool
    reason: str


def open_or_build(
    store: Store,
    representation: str,
    indexes_root: Path | str,
    factory: str = DEFAULT_FACTORY,
    *,
    verify: bool = True,
    gpu: int | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Open an index, or build it if it is missing or outdated."""
    load_faiss()  # report a missing package, not a missing index
    check_representation(store, representation)
    try:
        index = open_index(store, representation, indexes_root, factory, verify=verify)
        return Opened(index, built=False, reason="")
    except MissingError:
        reason = "first use"
    except NewerFormatError:
        raise  # belongs to a newer version of pa, which may still be in use
    except FingerprintError as error:
        reason = str(error)
    index = build(store, representation, indexes_root, factory, gpu=gpu, progress=progress)
    return Opened(index, built=True, reason=reason)


def build(
    store: Store,
    representation: str,
    indexes_root: Path | str,
    factory: str = DEFAULT_FACTORY,
    *,
    pieces: int = 1,
    gpu: int | None = None,
    progress: Progress | None = None,
) -> Index:
    """Build the index of one representation of a store, replacing an existing one.

    The store is read a block at a time: memory holds the index and one block; before that, the
    training sample (at most 2 GiB).

    Parameters
    ----------
    factory : str
        FAISS factory string; search parameters may follow an @: "IVF256,Flat@nprobe=16".
    pieces : int
        Build in this number of pieces, so that memory holds one piece instead of the index
        (`pa.index.pieces`). The answers are the same.
    gpu : int, optional
        Number of the GPU that finds the lists of an IVF index.

    Raises
    ------
    UsageError
        For a representation that is not one vector per row, a factory string that FAISS refuses,
        vectors that are not finite, or a store without a usable row.
    """
    faiss = load_faiss()
    dimension = check_representation(store, representation)
    faiss_index = make(faiss, dimension, factory)
    if pieces > 1:
        check_pieces(faiss_index, factory)
    directory = IndexKey(store.fingerprint, representation, factory).directory(indexes_root)
    progress = progress or Silent()
    with publishing(directory) as partial:
        training = None
        if not faiss_index.is_trained:
            training = train(faiss_index, store, representation, factory, progress, gpu)
        _reserve(faiss, faiss_index, store.n_rows)
        parts = Pieces(faiss_index, partial, store.n_rows, pieces) if pieces > 1 else None
        filled = _fill(faiss_index, store, representation, factory, progress, parts)
        info = IndexInfo(
            fingerprint=store.fingerprint,
            store_checksum=store.checksum,
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
            training=training,
        )
        index = Index(partial, info, store, faiss_index, filled.ids)
        if factory not in EXACT_FACTORIES:  # exact by construction, see `pa.index.ranking`
            with refusals(factory):
                recall = measure_recall(index, progress)
            index = replace(index, info=replace(info, recall_at_24=recall))
        # Open it before it is published: another builder may replace it right after.
        opened = open_files(partial, _write(faiss, index), store)
    return replace(opened, path=directory)


def check_representation(store: Store, representation: str) -> int:
    """Return the width of a representation that is one vector per row.

    Raises `UnknownNameError` if it is not stored, `UsageError` if it is not a vector.
    """
    shape = store.shape(representation)
    if len(shape) == 1:
        return shape[0]
    vectors = [name for name, s in store.spec.representations.items() if len(s) == 1]
    raise UsageError(
        f"{representation} of {store.title} has the shape {'×'.join(map(str, shape))} per row; an "
        f"index takes one vector per row. Choose {' or '.join(vectors) or 'another store'}."
    )


def make(faiss: Any, dimension: int, factory: str) -> Any:
    """Create an empty index, with the search parameters that follow an @."""
    description, _, parameters = factory.partition("@")
    with refusals(factory):
        faiss_index = faiss.index_factory(dimension, description, faiss.METRIC_INNER_PRODUCT)
        if parameters:
            faiss.ParameterSpace().set_index_parameters(faiss_index, parameters)
    return faiss_index


def _reserve(faiss: Any, faiss_index: Any, n: int) -> None:
    """Allocate memory for n rows at once: a growing vector briefly holds its rows twice."""
    if isinstance(faiss_index, faiss.IndexFlatCodes):
        faiss_index.codes.resize(n * faiss_index.code_size)
        faiss_index.codes.resize(0)  # keeps the allocated memory


@dataclass
class _Filled:
    """Counts of indexed, bad and zero rows, and the ids of the indexed ones."""

    n: int = 0
    n_bad: int = 0
    n_zero: int = 0
    rows: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def select(
        self, rows: npt.NDArray[np.int64], block: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Count a block; return which of its rows (n,) are of a valid image and not zero."""
        nonzero = block.any(axis=1)  # (n,)
        usable: npt.NDArray[np.bool_] = valid & nonzero  # (n,)
        self.n += int(usable.sum())
        self.n_bad += int((~valid).sum())
        self.n_zero += int((valid & ~nonzero).sum())
        self.rows.append(rows[usable])
        return usable

    @property
    def ids(self) -> npt.NDArray[np.int64] | None:
        """Row ids by position in the index; None if all rows are indexed."""
        return np.concatenate(self.rows) if self.n_bad or self.n_zero else None


def _fill(
    faiss_index: Any,
    store: Store,
    representation: str,
    factory: str,
    progress: Progress,
    parts: Pieces | None,
) -> _Filled:
    filled = _Filled()
    progress.start(f"index of {store.title} · {representation}", store.n_rows, "rows")
    try:
        for first, block in store.blocks(representation):
            rows = np.arange(first, first + len(block))  # (n,)
            check_finite(store, representation, block, rows)
            position = filled.n  # of the block's first vector in the index
            vectors = unit_vectors(block[filled.select(rows, block, store.valid[rows])])  # (n, D)
            with refusals(factory):
                if parts is None:
                    faiss_index.add(vectors)
                else:
                    parts.add(vectors, position, first + len(block))
            progress.advance(len(block))
    finally:
        progress.stop()
    if not filled.n:
        raise UsageError(
            f"{store.title} has no row to index: {filled.n_bad} rows belong to images that could "
            f"not be decoded, {filled.n_zero} have a zero {representation} vector."
        )
    if parts is not None:
        parts.merge()
    return filled


def _write(faiss: Any, index: Index) -> IndexInfo:
    """Write the files of an index into its directory, index.json last, and return its content."""
    with readable_folder(index.path) as folder:
        faiss.write_index(index.faiss_index, str(folder / INDEX))
    if index.ids is not None:
        np.save(index.path / IDS, index.ids)
    info = replace(index.info, files=checksums.of_files(sorted(index.path.iterdir())))
    write_json(index.path / INFO, info.to_json())
    return info
