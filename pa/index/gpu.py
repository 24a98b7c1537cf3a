"""FAISS on an NVIDIA GPU, where faiss-gpu and a device are.

The GPU proposes candidates; `pa.index.ranking` ranks them by cosines of the stored vectors as ever,
so the answers are those of the CPU. Not measured on a GPU: the tests use a stand-in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError
from pa.index.library import INSTALL, complaint, load_faiss
from pa.index.stored import Index

# The most neighbours that FAISS selects on a GPU (GPU_MAX_SELECTION_K of its source).
LARGEST_K = 2048


def gpus() -> int:
    """How many GPUs FAISS can use: none where its build has no GPU support."""
    faiss = load_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def gpu_number(device: str) -> int | None:
    """The GPU that a device string means to FAISS: None for cpu, and for auto where there is none.

    Raises `UsageError` for a GPU that FAISS cannot use, or an unknown device.
    """
    matched = re.fullmatch(r"cuda(?::(\d+))?", device)
    if device == "auto":
        return 0 if gpus() else None
    if device == "cpu":
        return None
    if matched is None:
        raise UsageError(f"an index knows no device {device!r}. Known: auto, cpu, cuda, cuda:1 …")
    number, found = int(matched[1] or 0), gpus()
    if not found:
        raise UsageError(
            f"device {device}: FAISS {load_faiss().__version__} sees no GPU here. {INSTALL} "
            f"Or leave --device out: the index works on the CPU."
        )
    if number >= found:
        raise UsageError(f"device {device}: FAISS sees {found} GPUs, cuda:0 to cuda:{found - 1}.")
    return number


@dataclass(frozen=True)
class OnGpu:
    """A FAISS index on a GPU, with the CPU's for what the GPU cannot do.

    `resources` is the GPU's memory, which must live as long as the index.
    """

    index: Any
    resources: Any
    cpu_index: Any = None

    def search(
        self, vectors: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """As `faiss.Index.search`; on the CPU beyond the largest k of a GPU."""
        found: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] = (
            self.index if k <= LARGEST_K else self.cpu_index
        ).search(vectors, k)
        return found


def to_gpu(index: Index, number: int) -> Index:
    """Copy an open index to a GPU, to search it there.

    Raises `UsageError` where FAISS has no GPU version of its kind, or the GPU has no room for it.
    """
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    try:
        copy = faiss.index_cpu_to_gpu(resources, number, index.faiss_index)
    except RuntimeError as error:
        raise UsageError(
            f"the index {index.info.factory} cannot be searched on cuda:{number}: "
            f"{complaint(error)}. Kinds that a GPU takes: Flat, SQfp16, IVF…,Flat, IVF…,PQ…. Or "
            f"leave --device out: it works on the CPU."
        ) from None
    return replace(index, faiss_index=OnGpu(copy, resources, index.faiss_index), on_gpu=True)


def clustering_on(number: int, dimension: int) -> OnGpu:
    """An empty index on a GPU for k-means by inner product: FAISS assigns rows to lists with it."""
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    flat = faiss.IndexFlatIP(dimension)
    return OnGpu(faiss.index_cpu_to_gpu(resources, number, flat), resources)
