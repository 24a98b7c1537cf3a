from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from pa.errors import UsageError
from pa.evaluate.average_precision import (
    average_precision,
    expected_average_precision,
    keys_in_place,
)


def oracle(scores: npt.NDArray[np.generic], relevant: npt.NDArray[np.bool_]) -> list[float]:
    return [
        average_precision_score(r, s) if r.any() else np.nan
        for s, r in zip(scores, relevant, strict=True)
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.3, 1000.0])
def test_equals_scikit_learn(dtype: type, scale: float) -> None:
    rng = np.random.default_rng(1)
    scores = (scale * rng.standard_normal((40, 300))).clip(-30000, 30000).astype(dtype)
    if scale < 1:
        scores = scores.clip(-1, 1)
    relevant = rng.random((40, 300)) < rng.random((40, 1))
    np.testing.assert_allclose(average_precision(scores, relevant), oracle(scores, relevant), 1e-12)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_ties_share_a_threshold(levels: int) -> None:
    rng = np.random.default_rng(2)
    scores = (rng.integers(levels, size=(50, 60)) / 7 - 0.3).astype(np.float32)
    relevant = rng.random((50, 60)) < 0.3
    np.testing.assert_allclose(average_precision(scores, relevant), oracle(scores, relevant), 1e-12)


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32,
        (1, 24),
        elements=st.floats(-1.9375, 1.9375, width=32, allow_subnormal=True),
    ),
    hnp.arrays(np.bool_, (1, 24)),
)
def test_scores_below_two_in_magnitude_are_exact(
    scores: npt.NDArray[np.float32], relevant: npt.NDArray[np.bool_]
) -> None:
    np.testing.assert_allclose(average_precision(scores, relevant), oracle(scores, relevant), 1e-12)


def test_neighbouring_floats_are_distinguished() -> None:
    first = np.float32(0.7)
    scores = np.array([[first, np.nextafter(first, np.float32(1)), -first]])
    assert average_precision(scores, np.array([[True, False, False]])) == [0.5]
    assert average_precision(scores, np.array([[False, True, False]])) == [1.0]


def test_signed_zeros_are_equal() -> None:
    scores = np.array([[0.0, -0.0]], dtype=np.float32)
    assert average_precision(scores, np.array([[True, False]])) == [0.5]
    assert average_precision(scores, np.array([[False, True]])) == [0.5]


def test_keys_keep_the_order_of_all_magnitudes() -> None:
    tiny = np.finfo(np.float32).smallest_subnormal
    values = np.array([-1.9999, -1, -1e-30, -tiny, 0, tiny, 1e-30, 0.5, 1.9999], np.float32)
    keys = keys_in_place(values.copy())
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    assert not (keys & 1).any()


def test_query_without_relevant_item_is_nan() -> None:
    scores = np.array([[0.1, 0.2], [0.1, 0.2]], dtype=np.float32)
    actual = average_precision(scores, np.array([[False, False], [True, False]]))
    assert np.isnan(actual[0])
    assert actual[1] == 0.5


def test_empty_input_is_accepted() -> None:
    assert np.isnan(average_precision(np.empty((2, 0)), np.empty((2, 0), dtype=bool))).all()


def test_nan_is_named() -> None:
    scores = np.array([[0.1, 0.2], [0.1, np.nan]], dtype=np.float32)
    with pytest.raises(UsageError, match="query 1 and item 1"):
        average_precision(scores, scores > 0)


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 3\) and \(3, 2\)"):
        average_precision(np.zeros((2, 3)), np.zeros((3, 2), dtype=bool))


@pytest.mark.parametrize("self_first", [False, True])
def test_chance_is_the_mean_over_all_rankings(self_first: bool) -> None:
    """Every placement of r relevant items among n ranks, scored by scikit-learn."""
    for n in range(2, 9):
        scores = -np.arange(n, dtype=np.float64)
        for r in range(1, n + 1):
            fixed, free = ((0,), range(1, n)) if self_first else ((), range(n))
            placed = [fixed + rest for rest in combinations(free, r - len(fixed))]
            each = [average_precision_score(np.isin(np.arange(n), item), scores) for item in placed]
            actual = expected_average_precision(np.array([r]), n, self_first=self_first)
            assert actual[0] == pytest.approx(np.mean(each), abs=1e-12), (n, r)


def test_chance_is_that_of_shuffled_scores_and_above_the_prior() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((4000, 200), dtype=np.float32)
    relevant = np.zeros((4000, 200), dtype=bool)
    relevant[:, :50] = True
    actual = expected_average_precision(np.array([50, 0]), 200)
    each = average_precision(scores, relevant)
    assert actual[0] == pytest.approx(each.mean(), abs=4 * each.std() / np.sqrt(4000))
    assert actual[0] > 50 / 200 + 0.005
    assert np.isnan(actual[1])
