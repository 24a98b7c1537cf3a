"""Measure the effect of half-precision forward passes on the features of real images.

N: images, D: width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pa.data import images as im
from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.extract.encoders.base import Encoder
from pa.extract.encoding import encode_pixels

K = 10  # neighbours compared
BATCH = 16  # images per forward pass


@dataclass(frozen=True)
class Agreement:
    """A precision compared with fp32, for one representation of n images."""

    dtype: str
    representation: str
    n: int
    k: int
    cosine_min: float  # of each vector with its fp32 vector
    cosine_mean: float
    top_k: float  # mean share of the k nearest other images that both precisions return


def compare(encoders: Mapping[str, Encoder], paths: Sequence[Path]) -> list[Agreement]:
    """Compare each precision in `encoders`, which maps names to encoders, with its "fp32".

    Raises `UsageError` for fewer than three images, `ImageError` for one that cannot be decoded.
    """
    if len(paths) < 3:
        raise UsageError(f"comparing neighbours needs three images or more, found {len(paths)}.")
    vectors = {dtype: _encode(encoder, paths) for dtype, encoder in encoders.items()}
    reference = vectors.pop("fp32")
    n, k = len(paths), min(K, len(paths) - 2)
    agreements = []
    for dtype, by_name in vectors.items():
        for name, compared in by_name.items():
            cosines = (reference[name] * compared).sum(1)  # (N,)
            nearest = []  # (N, k) each
            for unit in (reference[name], compared):
                similarity = unit @ unit.T  # (N, N)
                np.fill_diagonal(similarity, -np.inf)  # an image is not its own neighbour
                nearest.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
            shared = [len(set(a) & set(b)) / k for a, b in zip(*nearest, strict=True)]
            scores = float(cosines.min()), float(cosines.mean()), float(np.mean(shared))
            agreements.append(Agreement(dtype, name, n, k, *scores))
    return agreements


def _encode(encoder: Encoder, paths: Sequence[Path]) -> dict[str, npt.NDArray[np.float64]]:
    """Return unit vectors (N, D) of every vector representation."""
    names = [name for name, shape in encoder.representations.items() if len(shape) == 1]
    view, transform = VIEWS["image"], encoder.transform
    blocks = []
    for start in range(0, len(paths), BATCH):
        images = [im.decode(path.read_bytes(), path) for path in paths[start : start + BATCH]]
        canvases = [view.canvas(image, transform) for image in images]
        blocks.append(encode_pixels(encoder, im.stack(canvases), names))
    stacked = {name: np.concatenate([b[name] for b in blocks]).astype(float) for name in names}
    return {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in stacked.items()}
