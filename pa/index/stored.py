"""An index on disk: its files, its metadata, and opening it.

    <indexes>/<fingerprint[:16]>/<representation>/<factory>/
        index.faiss    the FAISS index of L2-normalised vectors, inner product
        index.ivfdata  its inverted lists; only of an index built in pieces
        ids.npy        (n,) int64, index position → row id; only if rows were skipped
        index.json     its source, recall, file sizes and checksums; written last

The directory is built under a partial name and renamed, so that it exists only when complete.

Shapes: N vectors of the index, Q queries, D width.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from pa.data.store.checksums import FileChecksum, has_checksum, with_checksum
from pa.data.store.reader import Store
from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.errors import FingerprintError, MissingError, NewerFormatError, VerificationError, is_newer
from pa.index.library import complaint, load_faiss, quiet, readable_folder

INDEX_FORMAT = 2  # other formats are refused and built again
DEFAULT_FACTORY = "SQfp16"  # exact after ranking, half the size of Flat, faster on a CPU
EXACT_FACTORIES = ("SQfp16", "Flat")  # ranking by stored vectors makes their answers exact

INDEX, LISTS, IDS, INFO = "index.faiss", "index.ivfdata", "ids.npy", "index.json"

MANY = 64  # queries: with fewer, widening the gallery costs more than it saves
SCAN_ROWS = 16_384  # 50 MB of float32 at D = 768


@dataclass(frozen=True)
class IndexKey:
    """Identity of an index: fingerprint of its store, representation, FAISS factory string."""

    fingerprint: str
    representation: str
    factory: str = DEFAULT_FACTORY

    def directory(self, indexes_root: Path | str) -> Path:
        """Return the directory of this index."""
        factory = quote(self.factory, safe=",=@+")  # percent-encoded where a file name needs it
        short = self.fingerprint[:FINGERPRINT_SHOWN]
        return Path(indexes_root) / short / self.representation / factory


@dataclass(frozen=True)
class Recall:
    """Recall@k of an approximate index against exact search, on seeded queries of the store."""

    k: int
    queries: int
    seed: int
    value: float


@dataclass(frozen=True)
class Training:
    """Training of an index: number of `rows`, their `seed`, and the number that FAISS advises."""

    rows: int
    seed: int
    advised: int


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """The fields of index.json.

    The index holds `n` vectors of width `dimension`. It skips `n_bad` rows of undecodable images
    and `n_zero` rows with a zero vector, whose cosine is undefined. `recall_at_24` is "exact" or
    the measured recall. `training` is None for an index that needs none. `store_checksum`
    identifies the features it was built from.
    """

    format: int = INDEX_FORMAT
    fingerprint: str
    store_checksum: str | None
    store: str
    representation: str
    factory: str
    n: int
    dimension: int
    n_bad: int
    n_zero: int
    recall_at_24: Literal["exact"] | Recall
    files: dict[str, FileChecksum]  # by file name
    faiss: str
    training: Training | None = None
    metric: str = "cosine"

    @property
    def exact(self) -> bool:
        return self.factory in EXACT_FACTORIES

    @property
    def key(self) -> IndexKey:
        return IndexKey(self.fingerprint, self.representation, self.factory)

    @property
    def quality(self) -> str:
        """Describe the accuracy of the answers: "exact", or the measured recall."""
        recall = self.recall_at_24
        if recall == "exact":
            return recall
        return f"recall@{recall.k} {recall.value:.3f} on {recall.queries} queries"

    def to_json(self) -> dict[str, Any]:
        return with_checksum(asdict(self))


@dataclass(frozen=True)
class Index:
    """An open index and the store it was built from.

    `faiss_index` is memory-mapped if it was opened from disk, or a copy on a GPU (`on_gpu`). `ids`
    is None if positions in the index equal row ids.
    """

    path: Path
    info: IndexInfo
    store: Store
    faiss_index: Any
    ids: npt.NDArray[np.int64] | None
    on_gpu: bool = False

    @property
    def n(self) -> int:
        return self.info.n

    def holds(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of the row ids (n,) are in the index."""
        if self.ids is None:
            return (rows >= 0) & (rows < self.n)  # (n,)
        return np.isin(rows, self.ids)

    def candidates(
        self, vectors: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return FAISS's top k for unit vectors (Q, D): inner products and row ids, (Q, k) each.

        The row id is -1 where an approximate index finds fewer than k.
        """
        if self.info.factory == "SQfp16" and not self.on_gpu and len(vectors) >= MANY:
            scores, positions = scan(self.faiss_index, vectors, k)  # (Q, k) each
        else:
            scores, positions = self.faiss_index.search(np.ascontiguousarray(vectors), k)
        if self.ids is None:
            return scores, positions
        return scores, np.where(positions >= 0, self.ids[positions], -1)


def scan(
    faiss_index: Any, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the k ≤ N largest inner products of many queries (Q, D), descending.

    `faiss_index` is a FAISS `SQfp16` index, possibly memory-mapped. Returns scores and rows, (Q, k)
    each.
    """
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    # FAISS's scalar quantiser reads the gallery once per query. For many queries it is faster to
    # widen a block of the gallery and multiply it with all of them (`benchmarks/search.py`).
    for start in range(0, faiss_index.ntotal, SCAN_ROWS):
        n = min(SCAN_ROWS, faiss_index.ntotal - start)
        block = faiss_index.reconstruct_n(start, n)  # (n, D)
        block_rows = np.broadcast_to(np.arange(start, start + n), (len(queries), n))
        scores = np.hstack([scores, queries @ block.T])  # (Q, ≤ k + n)
        rows = np.hstack([rows, block_rows])
        if scores.shape[1] > k:
            largest = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]  # (Q, k)
            scores = np.take_along_axis(scores, largest, 1)
            rows = np.take_along_axis(rows, largest, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def read_info(directory: Path) -> IndexInfo:
    """Read index.json.

    Raises `MissingError`, `VerificationError` for a damaged file, or `NewerFormatError`.
    """
    path = directory / INFO
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields.get("format")
        if not is_newer(version, INDEX_FORMAT):
            if version != INDEX_FORMAT:
                raise ValueError(f"index format {version}, this version reads {INDEX_FORMAT}")
            if not has_checksum(fields):
                raise ValueError("its checksum does not match")
            return TypeAdapter(IndexInfo).validate_python(fields)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"no index at {directory} (it has no {INFO}).") from None
    except (ValueError, AttributeError) as error:
        raise VerificationError(
            f"{path} is not readable ({type(error).__name__}: {error}). {_advice(directory)}"
        ) from None
    raise NewerFormatError(path, "index", version, INDEX_FORMAT)


def find_indexes(indexes_root: Path | str) -> Iterator[tuple[Path, IndexInfo | VerificationError]]:
    """Yield the indexes below a root, in order of their paths; an error for a damaged one.

    Those of a newer version of pa, which cannot be read, are skipped.
    """
    for path in sorted(Path(indexes_root).glob(f"*/*/*/{INFO}")):
        if not path.parent.name.endswith(".partial"):  # left by an interrupted build
            try:
                yield path.parent, read_info(path.parent)
            except VerificationError as error:
                yield path.parent, error
            except (MissingError, NewerFormatError):
                continue


def open_index(
    store: Store,
    representation: str,
    indexes_root: Path | str,
    factory: str = DEFAULT_FACTORY,
    *,
    verify: bool = True,
) -> Index:
    """Open an index, memory-mapped.

    File sizes are compared with index.json; with `verify`, checksums too, which reads all bytes.

    Raises
    ------
    MissingError
        If the index does not exist or FAISS is not installed.
    FingerprintError
        If the index was built from other features.
    VerificationError
        If its files have changed.
    """
    load_faiss()  # report a missing package before a missing index
    store.shape(representation)
    key = IndexKey(store.fingerprint, representation, factory)
    directory = key.directory(indexes_root)
    info = read_info(directory)
    if info.key != key:
        differing = ", ".join(
            f"{name} {getattr(info, name)} where {expected} was expected"
            for name, expected in vars(key).items()
            if getattr(info, name) != expected
        )
        raise FingerprintError(
            f"{directory} is the index of something else: {differing}. {_advice(directory)}"
        )
    check_store(info, store, directory)
    check_files(directory, info, verify=verify)
    return open_files(directory, info, store)


def open_files(directory: Path, info: IndexInfo, store: Store) -> Index:
    """Open the files of an index without checking them, memory-mapped.

    Raises `VerificationError` if FAISS cannot read them.
    """
    faiss = load_faiss()
    # Plain IO_FLAG_MMAP reads a flat index into memory; the newer flag maps it in place.
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    silence: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if LISTS in info.files:
        # The file of the lists is mapped; FAISS refuses the other flags, or crashes.
        flag, silence = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY, quiet()
    try:
        with silence, readable_folder(directory) as folder:
            faiss_index = faiss.read_index(str(folder / INDEX), flag)
        ids = np.load(directory / IDS) if IDS in info.files else None  # (n,)
    except (RuntimeError, ValueError) as error:
        raise VerificationError(
            f"{directory} cannot be read: {complaint(error)}. {_advice(directory)}"
        ) from None
    return Index(directory, info, store, faiss_index, ids)


def check_store(info: IndexInfo, store: Store, directory: Path) -> None:
    """Raise `FingerprintError` unless the index was built from the features of the store."""
    if info.store_checksum != store.checksum:
        raise FingerprintError(
            f"{directory} was built from other features of {store.title}: the store was extracted "
            f"again or repaired since. {_advice(directory)}"
        )


def check_files(directory: Path, info: IndexInfo, *, verify: bool) -> None:
    """Raise `VerificationError` if a file of an index differs from the one that was written."""
    for name, checksum in info.files.items():
        path = directory / name
        difference = checksum.difference(path, full=verify) if path.exists() else "it is missing"
        if difference is not None:
            raise VerificationError(f"{path}: {difference}. {_advice(directory)}")


def _advice(directory: Path) -> str:
    return f"Delete {directory}; it is built again on first use."
