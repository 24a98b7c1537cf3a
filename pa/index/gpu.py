"""Search and train FAISS indexes on an NVIDIA GPU with faiss-gpu.

The GPU proposes candidates; `pa.index.ranking` ranks them by cosines of the stored vectors, so the
answers equal those of the CPU. The tests use a stand-in for the GPU.
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

LARGEST_K = 2048  # neighbours that FAISS selects on a GPU (GPU_MAX_SELECTION_K of its source)


def gpus() -> int:
    """Return the number of GPUs that FAISS can use; 0 for a build without GPU support."""
    faiss = load_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def gpu_number(device: str) -> int | None:
    """Return the GPU number of a device string; None for cpu, and for auto without a GPU.

    Raises `UsageError` for a GPU that FAISS cannot use and for an unknown device.
    """
    matched = re.fullmatch(r"cuda(?::(\d+))?", device)
    if device == "auto":
        return 0 if gpus() else None
    if device == "cpu":
        return None
    if matched is None:
        raise UsageError(f"unknown device {device!r} of an index. Known: auto, cpu, cuda, cuda:1 …")
    number, available = int(matched[1] or 0), gpus()
    if not available:
        raise UsageError(
            f"device {device}: FAISS {load_faiss().__version__} sees no GPU here. {INSTALL} "
            f"Or omit --device: the index works on the CPU."
        )
    if number >= available:
        raise UsageError(
            f"device {device}: FAISS sees {available} GPUs, cuda:0 to cuda:{available - 1}."
        )
    return number


@dataclass(frozen=True)
class OnGpu:
    """A FAISS index on a GPU, and its CPU original for what the GPU cannot do.

    `resources` is the GPU's memory, which must live as long as the index.
    """

    index: Any
    resources: Any
    cpu_index: Any = None

    def search(
        self, vectors: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Search like `faiss.Index.search`; on the CPU if k exceeds the limit of a GPU."""
        index = self.index if k <= LARGEST_K else self.cpu_index
        scores, rows = index.search(vectors, k)  # (n, k) each
        return scores, rows


def to_gpu(index: Index, number: int) -> Index:
    """Copy an open index to a GPU.

    Raises `UsageError` if FAISS has no GPU version of its kind, or the GPU has no room for it.
    """
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    try:
        copy = faiss.index_cpu_to_gpu(resources, number, index.faiss_index)
    except RuntimeError as error:
        raise UsageError(
            f"the index {index.info.factory} cannot be searched on cuda:{number}: "
            f"{complaint(error)}. A GPU supports: Flat, SQfp16, IVF…,Flat, IVF…,PQ…. Or "
            f"omit --device: it works on the CPU."
        ) from None
    return replace(index, faiss_index=OnGpu(copy, resources, index.faiss_index), on_gpu=True)


def clustering_on(number: int, dimension: int) -> OnGpu:
    """Return an empty index on a GPU, with which FAISS assigns rows to lists in k-means."""
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    flat = faiss.IndexFlatIP(dimension)  # inner product: lists of unit vectors by cosine
    return OnGpu(faiss.index_cpu_to_gpu(resources, number, flat), resources)
