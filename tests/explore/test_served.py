"""A store that is read many times gives what a store gives, and trusts no file for long."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pa.data.store import Store
from pa.errors import OutOfRangeError, VerificationError
from pa.explore.served import ServedStore
from tests.index.conftest import MakeStore, make_store  # noqa: F401

from .conftest import N, clustered

ROWS = np.random.default_rng(3).integers(0, N, 200)


@pytest.mark.parametrize("storage", ["fp16", "fp32", "bf16", "int8"])
def test_it_reads_the_same_bytes(make_store: MakeStore, storage: str) -> None:  # noqa: F811
    plain = make_store(clustered(1, 16), storage=storage)
    served = ServedStore.open(plain.path)
    for rows in (ROWS, ROWS[:1], ROWS[:0], None, [0, N - 1, 0]):
        for name in ("pooled", "patch"):
            expected = plain.read(name, rows)
            for _ in range(2):
                found = served.read(name, rows)
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected)


def test_rows_outside_are_refused(make_store: MakeStore) -> None:  # noqa: F811
    store = make_store(clustered(1, 16))
    served = ServedStore.open(store.path)
    for row in (-1, N):
        with pytest.raises(OutOfRangeError, match=f"row id {row}"):
            served.read("pooled", [row])


def test_a_shard_that_changed_is_looked_at_again(make_store: MakeStore) -> None:  # noqa: F811
    store = make_store(clustered(1, 16))
    served = ServedStore.open(store.path)
    served.read("pooled", ROWS)
    shard = served.shard_path(served.plan[0])
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(VerificationError, match=shard.name):
        served.read("pooled", [0])
    shard.unlink()
    with pytest.raises(VerificationError, match=shard.name):
        served.read("pooled", [0])


def test_a_shard_put_back_is_read_again(make_store: MakeStore, tmp_path: Path) -> None:  # noqa: F811
    store = make_store(clustered(1, 16))
    served = ServedStore.open(store.path)
    expected = Store.open(store.path).read("pooled", [0, 5])
    shard = served.shard_path(served.plan[0])
    served.read("pooled", [0])
    shutil.copy(shard, tmp_path / "kept")
    shard.unlink()
    with pytest.raises(VerificationError):
        served.read("pooled", [0])
    shutil.copy(tmp_path / "kept", shard)
    assert np.array_equal(served.read("pooled", [0, 5]), expected)


def test_stores_of_the_same_rows_share_one_table(make_store: MakeStore) -> None:  # noqa: F811
    first = ServedStore.open(make_store(clustered(1, 16), name="first").path)
    second = ServedStore.open(make_store(clustered(2, 16), name="second").path)
    assert isinstance(first, ServedStore)
    assert isinstance(second, ServedStore)
    second.twin = first
    assert second.rows is first.rows
