"""Part against whole, of one query."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from pa.evaluate.neighbours import (
    SAME_CLASS,
    SAME_OBJECT,
    SAME_PART,
    SAME_PART_SAME_CLASS,
    UNRELATED,
)
from pa.explore.neighbour_shares import NeighbourShares

N = 60


@pytest.fixture
def store() -> Any:
    """Rows of parts: three rows an image, one object an image, two classes; row 5 has no label."""
    generator = np.random.default_rng(0)
    part = generator.integers(0, 3, N)
    rows = pl.DataFrame(
        {
            "image": [row // 3 for row in range(N)],
            "label": [None if row == 5 else f"part{p}" for row, p in enumerate(part)],
            "label_id": [None if row == 5 else int(p) for row, p in enumerate(part)],
            "part": [f"part{p}" for p in part],
            "object": [f"object{row // 3}" for row in range(N)],
            "class": [f"class{row // 3 % 2}" for row in range(N)],
        }
    )
    return SimpleNamespace(rows=rows, valid=np.ones(N, bool), title="birds")


def relation(rows: pl.DataFrame, a: int, b: int) -> str:
    """What row b is to row a, by comparing their columns one by one."""
    first, other = rows.row(a, named=True), rows.row(b, named=True)
    same_class = first["class"] == other["class"]
    if first["label"] == other["label"]:
        assert first["object"] != other["object"], "the rows of this test were chosen without these"
        return SAME_PART_SAME_CLASS if same_class else SAME_PART
    if first["object"] == other["object"]:
        return SAME_OBJECT
    return SAME_CLASS if same_class else UNRELATED


def test_shares_count_what_neighbours_are(store: Any) -> None:
    query = 8
    same = [6, 7]
    others = [
        row
        for row in [*range(12, 30), *same]
        if row // 3 != 2 or store.rows["label"][row] != store.rows["label"][query]
    ]
    actual = NeighbourShares(store).of(query, others, all_others=False)
    output = [relation(store.rows, query, row) for row in others]
    expected = {name: output.count(name) / len(output) for name in set(output)}
    assert {item.name: item.value for item in actual} == pytest.approx(expected)
    assert all(item.chance is None for item in actual)


def test_chance_is_the_share_among_all_other_rows(store: Any) -> None:
    query = 8
    rows = [row for row in range(N) if row not in (query, 5)]
    everything = {
        item.name: item for item in NeighbourShares(store).of(query, rows, all_others=True)
    }
    assert everything
    for item in everything.values():
        assert item.value == pytest.approx(item.chance)


def test_unlabelled_row_or_uploaded_image_has_no_relation(store: Any) -> None:
    assert NeighbourShares(store).of(5, [1, 2], all_others=True) == []
    assert NeighbourShares(store).of(None, [1, 2], all_others=True) == []
