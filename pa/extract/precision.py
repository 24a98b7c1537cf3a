"""What computing in half precision does to the features, measured on real images.

Shapes: N images, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pa.data import images as im
from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract.encoders.base import Encoder

K = 10
BATCH = 16


@dataclass(frozen=True)
class Agreement:
    """A precision against fp32, for one representation of N images.

    `cosine_min` and `cosine_mean` compare each vector with its fp32 self; `top_k` is the mean share
    of the k nearest images (by cosine, itself left out) that both precisions name.
    """

    dtype: str
    representation: str
    n: int
    k: int
    cosine_min: float
    cosine_mean: float
    top_k: float


def compare(encoders: Mapping[str, Encoder], paths: Sequence[Path]) -> list[Agreement]:
    """Compare every precision in `encoders` (by name, "fp32" among them) with fp32.

    Raises `UsageError` for fewer than three images, `ImageError` for one that cannot be decoded.
    """
    if len(paths) < 3:
        raise UsageError(f"comparing neighbours takes three images or more, not {len(paths)}.")
    vectors = {dtype: _encode(encoder, paths) for dtype, encoder in encoders.items()}
    k = min(K, len(paths) - 2)
    return [
        _agreement(dtype, name, vectors["fp32"][name], found, k)
        for dtype, by_name in vectors.items()
        if dtype != "fp32"
        for name, found in by_name.items()
    ]


def _encode(encoder: Encoder, paths: Sequence[Path]) -> dict[str, npt.NDArray[np.float64]]:
    """Unit vectors (N, D) of every vector representation."""
    names = [name for name, shape in encoder.representations.items() if len(shape) == 1]
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in names}
    device = next(encoder.module.parameters()).device
    view = VIEWS["image"]
    for start in range(0, len(paths), BATCH):
        canvases = [
            view.canvas(im.decode(path.read_bytes(), path), encoder.transform)
            for path in paths[start : start + BATCH]
        ]
        with torch.inference_mode():
            pixels = torch.from_numpy(im.stack(canvases)).to(device)
            features = encoder.encode(encoder.normalise(pixels), names)
        for name in names:
            found[name].append(features[name].double().cpu().numpy())
    stacked = {name: np.concatenate(blocks) for name, blocks in found.items()}
    return {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in stacked.items()}


def _agreement(
    dtype: str,
    name: str,
    reference: npt.NDArray[np.float64],
    found: npt.NDArray[np.float64],
    k: int,
) -> Agreement:
    cosines = (reference * found).sum(1)
    nearest = [_nearest(vectors, k) for vectors in (reference, found)]
    shared = [len(set(a) & set(b)) / k for a, b in zip(*nearest, strict=True)]
    return Agreement(
        dtype,
        name,
        len(found),
        k,
        float(cosines.min()),
        float(cosines.mean()),
        float(np.mean(shared)),
    )


def _nearest(unit: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.int64]:
    """The k nearest others of each vector, (N, k)."""
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]
