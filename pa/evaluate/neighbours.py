"""The nearest neighbours of every vector: their relation to the query, and hubness.

Shapes: N vectors, D width, k neighbours, M measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.errors import OutOfRangeError
from pa.evaluate.cosines import Gallery
from pa.progress import Progress, Silent

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Relation of a neighbour to its query. Exactly one holds.
SAME_PART_SAME_CLASS = "same part, another object of the same class"
SAME_PART = "same part, object of another class"
SAME_OBJECT = "another part of the same object"
SAME_CLASS = "another part, another object of the same class"
UNRELATED = "another part, object of another class"
SAME_PART_SAME_OBJECT = "same part of the same object"
RELATIONS = (
    SAME_PART_SAME_CLASS,
    SAME_PART,
    SAME_OBJECT,
    SAME_CLASS,
    UNRELATED,
    SAME_PART_SAME_OBJECT,
)

# Sums of relations, which the part-to-whole hypothesis is about; the image is independent of them.
PART = "same part of another object"
WHOLE = "another part of the same object or class"
SAME_IMAGE = "same image"
MEASURES = (*RELATIONS, PART, WHOLE, SAME_IMAGE)

USUAL_K = 24  # neighbours in the paper's Figures 2 and 4


def default_k(n_rows: int) -> int:
    """Return the number of neighbours of each of `n_rows` rows: 24, or all others if fewer."""
    return min(USUAL_K, n_rows - 1)


def check_k(k: int, n_rows: int) -> None:
    """Raise `OutOfRangeError` unless each of `n_rows` rows has k others."""
    if not 1 <= k < n_rows:
        raise OutOfRangeError(f"k must be from 1 to {n_rows - 1}, the other rows; found {k}.")


def all_neighbours(
    features: npt.NDArray[Any],
    k: int,
    *,
    rows: Ints | None = None,
    progress: Progress | None = None,
) -> Ints:
    """Return the k nearest other vectors of every vector by cosine.

    Cosines are float32, from one matrix product per block of queries.

    Parameters
    ----------
    features : array of shape (N, D)
    rows : integer array of shape (N,), optional
        Row ids used in error messages.

    Returns
    -------
    integer array of shape (N, k)
        Indices into `features`, nearest first; equal cosines by ascending index.

    Raises
    ------
    OutOfRangeError
        For k outside 1 to N - 1.
    UsageError
        For vectors without a cosine.
    """
    n = len(features)
    check_k(k, n)
    gallery = Gallery.of(features, rows)
    out = np.empty((n, k), dtype=np.int64)  # (N, k)
    progress = progress or Silent()
    progress.start(f"{k} nearest neighbours", n, "queries")
    try:
        for start, block in gallery.blocks():  # (n, N)
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf  # itself
            for query, cosines in enumerate(block, start):
                least = np.partition(cosines, n - k)[n - k]
                among = np.flatnonzero(cosines >= least)  # ascending, so a stable sort settles ties
                nearest = np.argsort(-cosines[among], kind="stable")[:k]
                out[query] = among[nearest]
            progress.advance(len(block))
    finally:
        progress.stop()
    return out


@dataclass(frozen=True, eq=False)
class NeighbourRelation:
    """Part, object, class and image of N rows, as numbers (N,), which relate rows to each other.

    An object has one class. If classes are unknown, every object has a different class.
    """

    part: Ints
    object: Ints
    object_class: Ints
    image: Ints

    def shares(self, neighbours: Ints, queries: Ints | None = None) -> Floats:
        """Return the share of each of `MEASURES` among the neighbours (n, k) of queries, (n, M).

        `queries` (n,) are indices of the queries, by default of all rows.
        """
        rows = np.arange(len(self.part)) if queries is None else queries

        def share(*columns: Ints) -> Floats:
            equal = [column[neighbours] == column[rows, None] for column in columns]  # (n, k) each
            shares: Floats = np.logical_and.reduce(equal).mean(axis=1)  # (n,)
            return shares

        return self._measures(share)

    def expected(self) -> Floats:
        """Return the expected shares (N, M) of neighbours drawn at random from all other rows."""
        others = len(self.part) - 1
        return self._measures(lambda *columns: _equal_rows(*columns) / others)

    def _measures(self, share: Callable[..., Floats]) -> Floats:
        """Return `MEASURES` (n, M); `share` gives the share (n,) of rows equal in some columns."""
        part, same_object, same_class = map(share, (self.part, self.object, self.object_class))
        part_of_object = share(self.part, self.object)  # overlaps both part and same_object
        part_of_class = share(self.part, self.object_class)  # contains part_of_object
        shares = {
            SAME_PART_SAME_CLASS: part_of_class - part_of_object,
            SAME_PART: part - part_of_class,
            SAME_OBJECT: same_object - part_of_object,
            SAME_CLASS: (same_class - part_of_class) - (same_object - part_of_object),
            UNRELATED: 1 - part - (same_class - part_of_class),
            SAME_PART_SAME_OBJECT: part_of_object,
            PART: part - part_of_object,
            WHOLE: same_class - part_of_class,
            SAME_IMAGE: share(self.image),
        }
        return np.stack([shares[name] for name in MEASURES], axis=1)


def _equal_rows(*columns: Ints) -> Floats:
    """Return the number of other rows that equal each row in all columns, (N,)."""
    _, inverse, counts = np.unique(
        np.stack(columns, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return (counts[inverse.ravel()] - 1).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Hubness:
    """How unevenly rows appear among the k nearest neighbours of the others.

    `occurrences` (N,) int64; `skewness` of its distribution (Radovanović et al. 2010), and
    `chance_skewness` for random neighbours; `never`, the share of rows that are never a neighbour.
    """

    occurrences: Ints
    skewness: float
    chance_skewness: float
    never: float

    @property
    def top(self) -> Ints:
        """Indices of all rows, the most frequent neighbour first."""
        return np.argsort(-self.occurrences, kind="stable")

    def to_json(self) -> dict[str, Any]:
        return {
            "skewness": self.skewness,
            "chance_skewness": self.chance_skewness,
            "never": self.never,
            "most": int(self.occurrences.max()),
        }


def hubness(neighbours: Ints) -> Hubness:
    """Count how often each row is among the neighbours (N, k)."""
    n, k = neighbours.shape
    occurrences = np.bincount(neighbours.ravel(), minlength=n)  # (N,)
    centred = occurrences - occurrences.mean()  # (N,)
    spread = float(np.sqrt((centred**2).mean()))
    p = k / (n - 1)  # of one row to be a random neighbour of another: a binomial distribution
    spread_at_random = np.sqrt((n - 1) * p * (1 - p))
    return Hubness(
        occurrences=occurrences,
        skewness=float((centred**3).mean() / spread**3) if spread else 0.0,
        chance_skewness=float((1 - 2 * p) / spread_at_random) if spread_at_random else 0.0,
        never=float((occurrences == 0).mean()),
    )
