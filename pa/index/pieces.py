"""Build an index larger than memory: fill it in pieces and merge their lists on disk.

All pieces have the same trained lists and codebooks, so the merge concatenates lists and computes
nothing (`faiss.contrib.ondisk.merge_ondisk`). The merged lists are a separate file, from which a
search reads the lists that it visits. Only an inverted file (IVF…) has lists to merge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError
from pa.index.library import load_faiss, quiet, readable_folder

LISTS = "index.ivfdata"  # inverted lists, memory-mapped by a search


def check_pieces(faiss_index: Any, factory: str) -> None:
    """Raise `UsageError` if an index of this factory string cannot be merged from pieces."""
    faiss = load_faiss()
    if faiss.try_extract_index_ivf(faiss_index) is None or "PQR" in factory:
        raise UsageError(
            f"{factory} cannot be built in pieces: only inverted files have lists to merge. Choose "
            f"one such as IVF4096,SQfp16@nprobe=32 or IVF4096,PQ32@nprobe=32, or build it whole."
        )


class Pieces:
    """Fill a trained, empty index of `n_rows` rows in `count` pieces, in the order of the rows.

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
            files = [str(folder / file.name) for file in self._files]
            merge_ondisk(self._index, files, str(folder / LISTS))
        for file in self._files:
            file.unlink()

    def _flush(self) -> None:
        file = self._folder / f"piece-{len(self._files):05d}.faiss"
        with readable_folder(self._folder) as folder:
            load_faiss().write_index(self._index, str(folder / file.name))
        self._index.reset()  # keeps the trained lists, drops the vectors
        self._files.append(file)
