"""Relations between a query and its neighbours."""

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
    """Rows of parts: three rows and one object per image, two classes; row 5 has no label."""
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
    """Return the relation of row b to row a, by comparing their columns."""
    first, other = rows.row(a, named=True), rows.row(b, named=True)
    same_class = first["class"] == other["class"]
    if first["label"] == other["label"]:
        assert first["object"] != other["object"], "the rows of this test were chosen without these"
        return SAME_PART_SAME_CLASS if same_class else SAME_PART
    if first["object"] == other["object"]:
        return SAME_OBJECT
    return SAME_CLASS if same_class else UNRELATED


def test_shares_count_relations_of_neighbours(store: Any) -> None:
    query = 8
    same = [6, 7]
    others = [
        row
        for row in [*range(12, 30), *same]
        if row // 3 != 2 or store.rows["label"][row] != store.rows["label"][query]
    ]
    shares = NeighbourShares(store).of(query, others, all_others=False)
    relations = [relation(store.rows, query, row) for row in others]
    expected = {name: relations.count(name) / len(relations) for name in set(relations)}
    assert {share.name: share.value for share in shares} == pytest.approx(expected)
    assert all(share.chance is None for share in shares)


def test_chance_is_the_share_among_all_other_rows(store: Any) -> None:
    query = 8
    rows = [row for row in range(N) if row not in (query, 5)]
    shares = NeighbourShares(store).of(query, rows, all_others=True)
    assert shares
    for share in shares:
        assert share.value == pytest.approx(share.chance)


def test_unlabelled_row_or_uploaded_image_has_no_relation(store: Any) -> None:
    assert NeighbourShares(store).of(5, [1, 2], all_others=True) == []
    assert NeighbourShares(store).of(None, [1, 2], all_others=True) == []
