"""Stores of the same rows share one table in memory."""

from __future__ import annotations

import numpy as np

from pa.explore.served import ServedStore
from tests.explore.conftest import clustered
from tests.index.conftest import MakeStore, make_store  # noqa: F401


def test_stores_of_the_same_rows_share_one_table(make_store: MakeStore) -> None:  # noqa: F811
    plain = make_store(clustered(1, 16), name="first")
    first = ServedStore.open(plain.path)
    second = ServedStore.open(make_store(clustered(2, 16), name="second").path)
    assert isinstance(first, ServedStore)
    assert isinstance(second, ServedStore)
    second.twin = first
    assert second.rows is first.rows
    assert first.rows.equals(plain.rows)
    assert np.array_equal(first.read("pooled", [3, 0]), plain.read("pooled", [3, 0]))
