"""Average precision from one integer sort.

AP = (1/P) · Σ over the P relevant items of (relevant items scored at least as high) / (items scored
at least as high): scikit-learn's `average_precision_score`, where equal scores share a threshold.

A float32 below 2 in magnitude has 30 bits without its sign, so its place in the order of all such
numbers, with the relevance in the lowest bit, fits into one int32: nothing is rounded. Sorting
these keys by descending score gives the rank of every relevant item at once, with no permutation
to carry along; among equal scores the relevant items come last, where the rank of the last one is
the one that all of them share.

Shapes: Q queries, N items, P relevant items, n rows of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError

Keys = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

LAST = np.int32(2**31 - 2)  # even, larger than all others: an item that is not a candidate
KEY_LIMIT = 2.0  # in magnitude: scores below need 30 bits without the sign

_FEW_TIES = 20  # per row: with fewer, a loop over them is faster
_BLOCK_ENTRIES = 1 << 18  # keys: 1 MB stays in the cache of a core


def average_precision(scores: npt.NDArray[Any], relevant: npt.NDArray[Any]) -> Floats:
    """Compute the average precision of each query, as scikit-learn's `average_precision_score`.

    float32 scores below 2 in magnitude (cosines) are sorted as integers, all others by argsort.

    Parameters
    ----------
    scores : array of shape (Q, N)
        Any real dtype.
    relevant : boolean array of shape (Q, N)

    Returns
    -------
    array of shape (Q,), float64
        NaN for queries without a relevant item.

    Raises
    ------
    UsageError
        For unequal shapes and for scores that are NaN.
    """
    scores, relevant = np.asarray(scores), np.asarray(relevant)
    if scores.ndim != 2 or scores.shape != relevant.shape:
        raise UsageError(
            f"scores and relevance must both be (queries, items), not {scores.shape} and "
            f"{relevant.shape}."
        )
    relevant = relevant.astype(np.bool_, copy=False)
    out = np.full(len(scores), np.nan)
    if scores.size == 0:
        return out
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise UsageError(f"the score of query {row} and item {column} is not a number.")
    if scores.dtype == np.float16:
        scores = scores.astype(np.float32)
    fast = scores.dtype == np.float32 and float(np.abs(scores).max()) < KEY_LIMIT
    step = max(1, _BLOCK_ENTRIES // scores.shape[1])
    for start in range(0, len(scores), step):
        block, marks = scores[start : start + step], relevant[start : start + step]
        if fast:
            out[start : start + step] = _by_keys(block, marks)
        else:
            out[start : start + step] = [
                _by_argsort(*row) for row in zip(block, marks, strict=True)
            ]
    return out


def expected_average_precision(
    n_relevant: npt.NDArray[Any], n_items: int, *, self_first: bool = False
) -> Floats:
    """Return the expected average precision of a random ranking, for each number of relevant items.

    The ranking has no ties. A relevant item is at each rank k with equal probability, and
    (r - 1) / (n - 1) of the k - 1 items before it are expected to be relevant too, so with
    H_n = 1 + 1/2 + … + 1/n

        E[AP] = (1/n) · [(r - 1) / (n - 1) · (n - H_n) + H_n].

    This exceeds the share r / n of relevant items, more so for few items. With `self_first` the
    first rank is that of the query itself, which counts among the n items and the r relevant ones;
    the others are in random order. NaN if r is 0.
    """
    r, n = np.asarray(n_relevant, dtype=np.float64), n_items
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    if self_first:  # ranks 2 to n are random: the mean precision of the other relevant items there
        before = (r - 2) * ((n - 1) - 2 * (harmonic - 1)) / max(n - 2, 1)
        others = (2 * (harmonic - 1) + before) / max(n - 1, 1)
        expected = (1 + (r - 1) * others) / np.where(r > 0, r, np.nan)
    else:
        expected = ((r - 1) / max(n - 1, 1) * (n - harmonic) + harmonic) / n
    return np.where(r > 0, expected, np.nan)


def keys_in_place(negated: npt.NDArray[np.float32]) -> Keys:
    """Turn negated scores, |x| < 2, into even keys, in the same memory.

    The keys ascend as the scores descend; 0.0 and -0.0 have the same key.
    """
    keys = negated.view(np.int32)
    sign = keys >> 31  # 0, or -1 = all bits set
    keys <<= 1  # twice the magnitude: shifts out the sign bit
    keys ^= sign
    keys -= sign
    return keys


def ap_of_keys(keys: Keys) -> Floats:
    """Return the average precision (n,) of contiguous keys (n, N), which are sorted in place.

    The key of a relevant item is odd. All rows have the same number of them, at least one.
    """
    keys.sort(axis=1)
    n, width = keys.shape
    odd = keys.astype(np.uint8)  # the lowest byte
    odd &= 1
    ranks = np.flatnonzero(odd.view(np.bool_)).reshape(n, -1)  # (n, P): positions in all keys
    relevant = keys.reshape(-1).take(ranks)  # (n, P)
    # From positions in the flat array to ranks in their row, from 1.
    ranks -= np.arange(-1, n * width - 1, width)[:, None]
    precision = np.arange(1, ranks.shape[1] + 1) / ranks  # (n, P)
    # Items of equal score get the precision of the last of them. Among thousands of distinct
    # vectors a few pairs of cosines are equal in float32; equal vectors tie everywhere.
    tied = relevant[:, 1:] == relevant[:, :-1]  # (n, P - 1)
    # NumPy's search in two axes is ten times slower than in one.
    ties = np.flatnonzero(tied)
    if len(ties) <= _FEW_TIES * n:
        # The last tie of a group comes first, so that its precision reaches the whole group.
        rows, columns = divmod(ties[::-1], tied.shape[1])
        for row, column in zip(rows, columns, strict=True):
            precision[row, column] = precision[row, column + 1]
    else:
        for row in np.flatnonzero(tied.any(axis=1)):
            last = np.searchsorted(relevant[row], relevant[row], side="right") - 1  # (P,)
            precision[row] = precision[row, last]
    means: Floats = precision.mean(axis=1)
    return means


def _by_keys(scores: npt.NDArray[np.float32], relevant: npt.NDArray[np.bool_]) -> Floats:
    """Score a block of rows by integer sorts, rows with equally many relevant items together."""
    keys = keys_in_place(-scores)
    keys += relevant
    counts = relevant.sum(axis=1)  # (n,) relevant items of each row
    out = np.full(len(scores), np.nan)
    for count in np.unique(counts[counts > 0]):
        rows = counts == count
        out[rows] = ap_of_keys(np.ascontiguousarray(keys[rows]))
    return out


def _by_argsort(scores: npt.NDArray[Any], relevant: npt.NDArray[np.bool_]) -> float:
    """Score one row of any dtype."""
    if not relevant.any():
        return float("nan")
    order = np.argsort(scores, kind="stable")[::-1]
    ordered, marks = scores[order], relevant[order]
    # Equal scores share one threshold, which is at the last of them.
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(marks)[ends]  # relevant items at or above each threshold
    gained = np.diff(hits, prepend=0)  # relevant items at each threshold
    return float((gained * hits / (ends + 1)).sum() / hits[-1])
