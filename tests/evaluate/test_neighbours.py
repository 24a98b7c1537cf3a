from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pa.errors import OutOfRangeError
from pa.evaluate.neighbours import (
    MEASURES,
    PART,
    RELATIONS,
    SAME_CLASS,
    SAME_IMAGE,
    SAME_OBJECT,
    SAME_PART,
    SAME_PART_SAME_CLASS,
    SAME_PART_SAME_OBJECT,
    UNRELATED,
    WHOLE,
    NeighbourRelation,
    all_neighbours,
    hubness,
)


def test_nearest_equal_those_of_full_sort() -> None:
    features = np.random.default_rng(0).standard_normal((150, 8)).astype(np.float32)
    wide = features.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = wide @ wide.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.argsort(-cosines, axis=1)[:, :24]
    assert (all_neighbours(features, 24) == expected).all()


def test_equal_neighbours_are_ordered_by_row() -> None:
    features = np.ones((6, 3))
    assert all_neighbours(features, 2).tolist() == [
        [1, 2],
        [0, 2],
        [0, 1],
        [0, 1],
        [0, 1],
        [0, 1],
    ]


@pytest.mark.parametrize("k", [0, 6, -1])
def test_k_beyond_the_others_is_refused(k: int) -> None:
    with pytest.raises(OutOfRangeError, match="from 1 to 5"):
        all_neighbours(np.eye(6), k)


def some_rows(seed: int = 0) -> NeighbourRelation:
    """Thirty birds of five species in 25 images, each with up to four parts (some twice)."""
    rng = np.random.default_rng(seed)
    bird = np.sort(rng.integers(30, size=120))
    return NeighbourRelation(
        part=rng.integers(4, size=120), object=bird, object_class=bird % 5, image=bird // 2
    )


def relation(rows: NeighbourRelation, query: int, other: int) -> str:
    """By the words of the definitions, case by case."""
    part = rows.part[query] == rows.part[other]
    if rows.object[query] == rows.object[other]:
        return SAME_PART_SAME_OBJECT if part else SAME_OBJECT
    if rows.object_class[query] == rows.object_class[other]:
        return SAME_PART_SAME_CLASS if part else SAME_CLASS
    return SAME_PART if part else UNRELATED


def test_shares_are_those_of_counting_case_by_case() -> None:
    rows = some_rows()
    neighbours = all_neighbours(np.random.default_rng(1).standard_normal((120, 5)), 7)
    shares = rows.shares(neighbours)
    for query, values in enumerate(neighbours):
        kinds = [relation(rows, query, other) for other in values]
        for name in RELATIONS:
            assert shares[query, MEASURES.index(name)] == pytest.approx(kinds.count(name) / 7)
        same_image = (rows.image[values] == rows.image[query]).mean()
        assert shares[query, MEASURES.index(SAME_IMAGE)] == pytest.approx(same_image)
    assert shares[:, : len(RELATIONS)].sum(axis=1) == pytest.approx(1)


def test_sums_are_sums() -> None:
    rows = some_rows()
    shares = dict(zip(MEASURES, rows.expected().T, strict=True))
    assert shares[PART] == pytest.approx(shares[SAME_PART] + shares[SAME_PART_SAME_CLASS])
    assert shares[WHOLE] == pytest.approx(shares[SAME_OBJECT] + shares[SAME_CLASS])


def test_expected_shares_are_those_of_all_others() -> None:
    rows = some_rows()
    n = len(rows.part)
    everything = np.array([[j for j in range(n) if j != i] for i in range(n)])
    np.testing.assert_allclose(rows.expected(), rows.shares(everything), atol=1e-12)


def test_hubness_is_the_skewness_of_the_occurrences() -> None:
    neighbours = all_neighbours(np.random.default_rng(2).standard_normal((200, 40)), 10)
    actual = hubness(neighbours)
    counts = [int((neighbours == row).sum()) for row in range(200)]
    assert actual.occurrences.tolist() == counts
    assert actual.skewness == pytest.approx(stats.skew(counts))
    assert actual.never == pytest.approx(counts.count(0) / 200)
    assert actual.chance_skewness == pytest.approx(stats.binom(199, 10 / 199).stats("s"))
    assert counts[actual.top[0]] == max(counts)


def test_ring_has_no_hubs() -> None:
    ring = (np.arange(10)[:, None] + [1, 9]) % 10
    actual = hubness(ring)
    assert (actual.skewness, actual.never) == (0, 0)
