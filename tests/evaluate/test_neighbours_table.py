from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pa.data.views import VIEWS
from pa.errors import UsageError
from pa.evaluate.neighbours import (
    MEASURES,
    PART,
    SAME_CLASS,
    SAME_IMAGE,
    SAME_OBJECT,
    SAME_PART_SAME_CLASS,
    WHOLE,
)
from pa.evaluate.neighbours_table import measure_stores
from pa.evaluate.result_files import read_result
from pa.progress import Silent
from tests.support.parts import MakeParts, birds, features_of


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
