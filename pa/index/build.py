"""Build the FAISS index of one representation of a store.

The vectors are L2-normalised, so that FAISS's inner product is the cosine. The default is the fp16
scalar quantiser: half the size of a flat index and about four times as fast on a CPU;
`pa.index.ranking` makes its answers exact.

An inverted file (IVF…) larger than memory is filled in pieces whose lists are merged on disk. All
pieces have the same trained lists and codebooks, so the merge concatenates lists and computes
nothing (`faiss.contrib.ondisk.merge_ondisk`); a search reads the lists that it visits.

Shapes: N rows of the store, n rows of a block, D width.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data import files
from pa.data.store.checksums import FileChecksum
from pa.data.store.reader import Store
from pa.data.vectors import unit_vectors
from pa.errors import (
    FingerprintError,
    MissingError,
    NewerFormatError,
    UsageError,
    VerificationError,
)
from pa.index.library import load_faiss, quiet, readable_folder, refusals
from pa.index.recall import measure_recall
from pa.index.stored import (
    DEFAULT_FACTORY,
    IDS,
    INDEX,
    INFO,
    LISTS,
    Index,
    IndexInfo,
    IndexKey,
    open_files,
    open_index,
)
from pa.index.training import check_finite, train
from pa.progress import Progress, Silent


@dataclass(frozen=True)
class Opened:
    """An index, whether it was just built, and why ("" if it was not)."""

    index: Index
    built: bool = False
    reason: str = ""


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
    """Open an index, or build it if it is missing, damaged or outdated."""
    load_faiss()  # report a missing package, not a missing index
    check_representation(store, representation)
    try:
        return Opened(open_index(store, representation, indexes_root, factory, verify=verify))
    except MissingError:
        reason = "first use"
    except NewerFormatError:
        raise  # belongs to a newer version of pa, which may still be in use
    except (FingerprintError, VerificationError) as error:
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
        Build in this number of pieces, so that memory holds one piece instead of the index. The
        answers are the same.
    gpu : int, optional
        Number of the GPU that finds the lists of an IVF index.

    Raises
    ------
    UsageError
        For a representation that is not one vector per row, a factory string that FAISS refuses or
        whose index cannot be built in pieces, vectors that are not finite, or a store without a
        usable row.
    """
    faiss, progress = load_faiss(), progress or Silent()
    dimension = check_representation(store, representation)
    faiss_index = make(faiss, dimension, factory)
    if pieces > 1 and (faiss.try_extract_index_ivf(faiss_index) is None or "PQR" in factory):
        raise UsageError(
            f"{factory} cannot be built in pieces: only inverted files have lists to merge. Choose "
            f"one such as IVF4096,SQfp16@nprobe=32 or IVF4096,PQ32@nprobe=32, or build it whole."
        )
    key = IndexKey(store.fingerprint, representation, factory)
    directory = key.directory(indexes_root)
    with _publishing(directory) as partial:
        training = None
        if not faiss_index.is_trained:
            training = train(faiss_index, store, representation, factory, progress, gpu)
        parts = Pieces(faiss_index, partial, store.n_rows, pieces) if pieces > 1 else None
        ids = _fill(faiss_index, store, key, progress, parts)  # (n,)
        n_bad = int((~store.valid).sum())
        info = IndexInfo(
            **vars(key),
            store_checksum=store.checksum,
            store=store.title,
            n=len(ids),
            dimension=dimension,
            n_bad=n_bad,
            n_zero=store.n_rows - n_bad - len(ids),
            recall_at_24="exact",
            files={},
            faiss=faiss.__version__,
            training=training,
        )
        is_whole = len(ids) == store.n_rows  # positions in the index equal row ids
        index = Index(partial, info, store, faiss_index, None if is_whole else ids)
        if not info.exact:
            with refusals(factory):
                info = replace(info, recall_at_24=measure_recall(index, progress))
        # Open it before it is published: another builder may replace it right after.
        opened = open_files(partial, _write(faiss, replace(index, info=info)), store)
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


class Pieces:
    """Fill a trained, empty inverted file of `n_rows` rows in `count` pieces, in row order.

    `folder` holds the pieces, which the merge removes, and the merged lists: during the merge it
    holds the index twice. Memory holds one piece.
    """

    def __init__(self, faiss_index: Any, folder: Path, n_rows: int, count: int) -> None:
        self._index = faiss_index
        self._folder = folder
        self._n_rows = n_rows
        self._count = min(count, n_rows)
        self._files: list[Path] = []

    def add(self, vectors: npt.NDArray[np.float32], first: int, rows: int) -> None:
        """Add vectors (n, D) at position `first` of the whole index; write a full piece.

        `rows` is the number of rows of the store that have been read so far.
        """
        # FAISS can number the vectors while it merges, but for pieces of unequal length it gives
        # some rows the numbers of others (seen with 1.15).
        self._index.add_with_ids(vectors, np.arange(first, first + len(vectors)))
        if rows * self._count >= (len(self._files) + 1) * self._n_rows and rows < self._n_rows:
            self._flush()

    def merge(self) -> None:
        """Merge all pieces into lists on disk, which become those of the index."""
        from faiss.contrib.ondisk import merge_ondisk

        self._flush()
        with quiet(), readable_folder(self._folder) as folder:
            names = [str(folder / file.name) for file in self._files]
            merge_ondisk(self._index, names, str(folder / LISTS))
        for file in self._files:
            file.unlink()

    def _flush(self) -> None:
        file = self._folder / f"piece-{len(self._files):05d}.faiss"
        with readable_folder(self._folder) as folder:
            load_faiss().write_index(self._index, str(folder / file.name))
        self._index.reset()  # keeps the trained lists, drops the vectors
        self._files.append(file)


def _fill(
    faiss_index: Any, store: Store, key: IndexKey, progress: Progress, parts: Pieces | None
) -> npt.NDArray[np.int64]:
    """Add every row of a valid image that is not zero; return the row ids (n,) by position."""
    faiss = load_faiss()
    if isinstance(faiss_index, faiss.IndexFlatCodes):
        # Allocate memory for all rows at once: a growing vector briefly holds its rows twice.
        faiss_index.codes.resize(store.n_rows * faiss_index.code_size)
        faiss_index.codes.resize(0)  # keeps the allocated memory
    ids: list[npt.NDArray[np.int64]] = []
    position = 0  # of the next vector in the index
    progress.start(f"index of {store.title} · {key.representation}", store.n_rows, "rows")
    try:
        for first, block in store.blocks(key.representation):
            rows = np.arange(first, first + len(block))  # (n,)
            check_finite(store, key.representation, block, rows)
            usable = store.valid[rows] & block.any(axis=1)  # (n,)
            vectors = unit_vectors(block[usable])  # (n, D) or fewer
            with refusals(key.factory):
                if parts is None:
                    faiss_index.add(vectors)
                else:
                    parts.add(vectors, position, first + len(block))
            ids.append(rows[usable])
            position += len(vectors)
            progress.advance(len(block))
    finally:
        progress.stop()
    if not position:
        n_bad = int((~store.valid).sum())
        raise UsageError(
            f"{store.title} has no row to index: {n_bad} rows belong to images that could not be "
            f"decoded, {store.n_rows - n_bad} have a zero {key.representation} vector."
        )
    if parts is not None:
        parts.merge()
    return np.concatenate(ids)


def _write(faiss: Any, index: Index) -> IndexInfo:
    """Write the files of an index into its directory, index.json last, and return its content."""
    with readable_folder(index.path) as folder:
        faiss.write_index(index.faiss_index, str(folder / INDEX))
    if index.ids is not None:
        np.save(index.path / IDS, index.ids)
    paths = sorted(index.path.iterdir())
    info = replace(index.info, files={path.name: FileChecksum.of(path) for path in paths})
    files.write_json(index.path / INFO, info.to_json())
    return info


@contextlib.contextmanager
def _publishing(directory: Path) -> Iterator[Path]:
    """Yield a partial directory; it becomes `directory` when the block ends without error.

    The directory replaces the one that existed at the start. If another process has published a
    newer one in the meantime, that one stays: both were built from the same store.
    """

    def identity() -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = directory.stat()
            return status.st_ino, status.st_mtime_ns
        return None

    outdated = identity()
    try:
        with files.storage_errors(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with files.locked_partial(directory, folder=True) as partial:
                yield partial
                for path in (*partial.iterdir(), partial):
                    files.sync(path)
                retired = files.partial_path(directory)
                if outdated is not None and identity() == outdated:
                    with contextlib.suppress(FileNotFoundError):
                        directory.rename(retired)
                try:
                    partial.rename(directory)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise  # not the directory that another process has just published
                shutil.rmtree(retired, ignore_errors=True)
                files.sync(directory.parent)
        files.note_written(directory)
    finally:
        files.remove_stale(directory.parent, directory.name)
