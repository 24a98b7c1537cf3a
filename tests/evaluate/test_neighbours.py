from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pa.data.views import VIEWS
from pa.errors import OutOfRangeError, UsageError
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
    measure_stores,
)
from pa.evaluate.result_files import read_result
from pa.progress import Silent
from tests.support.parts import MakeParts, birds, features_of


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


# -- stores and representations ----------------------------------------------------------------


def measure(stores, k=6, representations=()):  # type: ignore[no-untyped-def]
    return measure_stores(stores, representations, k, results=Path("results"), progress=Silent())


def test_projection_by_object_retrieves_wholes(make_parts: MakeParts) -> None:
    """cls clusters by part, projected by bird: the measures must say so."""
    (cls, _, projected), differences = measure([make_parts()])
    assert cls.scores[PART].value > 2 * cls.scores[PART].chance
    assert projected.scores[SAME_OBJECT].value > 5 * projected.scores[SAME_OBJECT].chance
    assert [item.name for item in differences] == [
        "dino: projected − cls",
        "dino: projected − pooled",
    ]
    moved = differences[0].scores
    assert moved[PART].high < 0 < moved[WHOLE].low
    for name in MEASURES:
        expected = projected.scores[name].value - cls.scores[name].value
        assert moved[name].value == pytest.approx(expected)
    assert read_result(differences[0].path).result.to_json()["scores"][PART][
        "value"
    ] == pytest.approx(moved[PART].value)


def test_per_query_shares_are_kept(make_parts: MakeParts) -> None:
    store = make_parts()
    (actual,), _ = measure([store], representations=["cls"])
    kept = pl.read_parquet(actual.path.with_suffix(".parquet"))
    assert kept["row"].to_list() == store.rows["row"].to_list()
    for name in MEASURES:
        assert kept[name].mean() == pytest.approx(actual.scores[name].value)
    assert kept["occurrences"].sum() == 6 * store.n_rows
    details = read_result(actual.path).result.to_json()["details"]
    assert details["hubs"][0]["occurrences"] == kept["occurrences"].max()
    assert details["hubs"][0]["row"] == actual.hub_rows[0]


def test_objects_without_class_count_as_one_class(make_parts: MakeParts) -> None:
    rows = birds().with_columns(pl.lit(None, pl.String).alias("class"))
    store = make_parts(rows=rows, features={"cls": features_of(rows, 12, 1.0)})
    (actual,), _ = measure([store])
    assert actual.scores[SAME_CLASS].chance == actual.scores[SAME_PART_SAME_CLASS].chance == 0
    assert list(actual.shown.values()) == [
        PART,
        SAME_OBJECT,
        "another part of another object",
        SAME_IMAGE,
    ]


def test_rows_without_object_belong_to_that_of_their_image(make_parts: MakeParts) -> None:
    rows = birds().with_columns(pl.lit(None, pl.String).alias("object"))
    features = {"cls": features_of(birds(), 12, 1.0)}
    (unknown,), _ = measure([make_parts(rows=rows, features=features)])
    (known,), _ = measure([make_parts("mae", features=features)])
    assert {n: m.value for n, m in unknown.scores.items()} == {
        n: m.value for n, m in known.scores.items()
    }


def test_stores_without_parts_are_refused(make_parts: MakeParts) -> None:
    rows = birds().drop("part", "object", "class", "x", "y", "d")
    store = make_parts(
        rows=rows,
        features={"cls": np.ones((len(rows), 3), np.float32)},
        view=VIEWS["grid"].to_json(),
    )
    with pytest.raises(UsageError, match="--view parts"):
        measure([store])
