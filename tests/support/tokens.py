"""Token maps whose class only attention can see."""

from __future__ import annotations

import numpy as np

from tests.support.arrays import Floats

WIDTH, N_PATCHES, N_CLASSES = 64, 9, 3


def token_maps(n: int, seed: int = 0, *, strength: float = 6.0) -> tuple[Floats, list[str]]:
    """Tokens (n, 1 + L, D), the class token first, and their classes' names in turn.

    All tokens are noise, but that one patch token of each row, at a random place, points in the
    direction of its class.
    """
    draw = np.random.default_rng(seed)
    tokens = draw.normal(size=(n, 1 + N_PATCHES, WIDTH)).astype(np.float32)
    target = np.arange(n) % N_CLASSES
    places = draw.integers(1, 1 + N_PATCHES, n)
    tokens[np.arange(n), places, target] += strength
    tokens[np.arange(n), places, N_CLASSES] += strength  # what a query can look for
    return tokens.astype(np.float32), [f"c{index}" for index in target]
