from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from pa.data.store import reading, shards
from pa.data.store.reader import Store
from pa.data.store.stream import BlockShuffle, Stream, in_order
from pa.errors import UsageError, VerificationError
from tests.support.stores import features_of

MakeStore = Callable[..., Store]


def collect(stream: Stream, buffers: list[np.ndarray], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """All places and features, copied, as a consumer sees them one batch at a time."""
    seen = [(places.copy(), features.copy()) for places, features in stream.batches(buffers, batch)]
    assert [len(places) for places, _ in seen[:-1]] == [batch] * (len(seen) - 1)
    return np.concatenate([p for p, _ in seen]), np.concatenate([f for _, f in seen])


# -- the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "block", "buffer"), [(1, 4, 8), (7, 4, 8), (64, 4, 16), (1000, 32, 100)]
)
def test_stream_visits_every_row_once_from_few_blocks(n: int, block: int, buffer: int) -> None:
    buffers = BlockShuffle(3, block, buffer).buffers(n, epoch=5)
    assert sorted(np.concatenate(buffers).tolist()) == list(range(n))
    at_once = -(-buffer // block)
    for places in buffers:
        blocks, counts = np.unique(places // block, return_counts=True)
        assert len(blocks) <= at_once
        whole = [min(block, n - block * b) for b in blocks.tolist()]
        assert counts.tolist() == whole  # what is read is whole blocks


def test_stream_order_depends_on_seed_and_epoch() -> None:
    order = BlockShuffle(1, 8, 32)
    first, again = (np.concatenate(order.buffers(500, 2)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, np.concatenate(order.buffers(500, 3)))
    assert not np.array_equal(first, np.concatenate(BlockShuffle(2, 8, 32).buffers(500, 2)))


def test_few_rows_are_permuted_together() -> None:
    """Each row comes first about equally often: a permutation that is uniform, not by blocks."""
    first = [BlockShuffle(0, 2, 8).buffers(8, epoch)[0][0] for epoch in range(4000)]
    counts = np.bincount(first, minlength=8)
    # Chi-squared with 7 degrees of freedom exceeds 24.3 once in a thousand.
    assert ((counts - 500) ** 2 / 500).sum() < 24.3


@pytest.mark.parametrize("sizes", [(0, 0, 8), (0, 8, 0), (-1, 8, 8)])
def test_sizes_out_of_range(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="a block and a buffer hold 1 row or more"):
        BlockShuffle(*sizes)


# -- the stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("representation", ["patch", "pooled"])
@pytest.mark.parametrize("memory", [0, 1e9])
def test_stream_equals_store(
    make_store: MakeStore, storage: str, representation: str, memory: float
) -> None:
    store = make_store(n_images=9, storage=storage)
    expected = store.read(representation)
    stream = Stream(store, representation, np.arange(store.n_rows), memory=memory)
    assert stream.is_kept == (memory > 0)
    for epoch in range(2):  # the second epoch uses the memory of the first
        buffers = BlockShuffle(0, 3, 7).buffers(len(stream), epoch)
        places, features = collect(stream, buffers, 4)
        assert np.array_equal(places, np.concatenate(buffers))
        np.testing.assert_array_equal(features, expected[places])


@pytest.mark.parametrize("batch", [1, 5, 9, 10, 11, 1000])
def test_rows_outside_the_selection_are_skipped(make_store: MakeStore, batch: int) -> None:
    store = make_store(n_images=9)
    rows = np.random.default_rng(0).choice(store.n_rows, store.n_rows // 2, replace=False)
    stream = Stream(store, "patch", rows)
    places, features = collect(stream, BlockShuffle(0, 4, 10).buffers(len(rows), 0), batch)
    assert sorted(places.tolist()) == list(range(len(rows)))
    np.testing.assert_array_equal(features, store.read("patch", rows[places]))


def test_rows_as_they_come(make_store: MakeStore) -> None:
    store = make_store(n_images=5)
    places, features = collect(
        Stream(store, "patch", np.arange(store.n_rows)), in_order(store.n_rows, 3), 7
    )
    assert places.tolist() == list(range(store.n_rows))
    np.testing.assert_array_equal(features, store.read("patch"))


def test_memory_held_is_two_buffers_or_all(make_store: MakeStore) -> None:
    store = make_store(n_images=9)
    first = store.read("patch", [0]).nbytes
    rows = np.arange(store.n_rows)
    assert Stream(store, "patch", rows).held_bytes(8) == 16 * first
    kept = Stream(store, "patch", rows, memory=first * store.n_rows)
    assert kept.is_kept
    assert kept.held_bytes(8) == first * store.n_rows
    assert not Stream(store, "patch", rows, memory=first * store.n_rows - 1).is_kept


def test_error_of_reader_thread_is_raised(make_store: MakeStore) -> None:
    store = make_store(n_images=9)
    store.shard_path(store.plan[-1]).unlink()
    stream = Stream(store, "patch", np.arange(store.n_rows))
    with pytest.raises(VerificationError, match="it does not exist"):
        collect(stream, in_order(store.n_rows, 4), 4)


def test_reader_can_stop_early(make_store: MakeStore) -> None:
    store = make_store(n_images=9)
    stream = Stream(store, "patch", np.arange(store.n_rows))
    batches = stream.batches(in_order(store.n_rows, 4), 4)
    next(batches)
    batches.close()
    _, features = collect(stream, in_order(store.n_rows, 4), 4)
    np.testing.assert_array_equal(features, store.read("patch"))


# -- scattered reading -----------------------------------------------------------------------------


@pytest.fixture
def pieces(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file of 2000 pieces of 24 bytes with gaps between them, and their offsets."""
    draw = np.random.default_rng(0)
    offsets = np.cumsum(24 + draw.choice([0, 0, 3, 5000, reading.GAP_READ + 1], 2000))
    data = draw.integers(0, 256, int(offsets[-1]) + 24, dtype=np.uint8)
    (tmp_path / "file").write_bytes(data.data)
    return tmp_path / "file", offsets


def test_scattered_pieces_find_their_places(pieces: tuple[Path, np.ndarray]) -> None:
    path, offsets = pieces
    data = np.fromfile(path, np.uint8)
    draw = np.random.default_rng(1)
    chosen, places = draw.permutation(2000)[:900], draw.permutation(1000)[:900]
    chosen[10] = chosen[11]  # one piece twice
    out = np.zeros((1000, 24), np.uint8)
    reading.read_pieces(path, offsets[chosen], out, places)
    expected = np.zeros_like(out)
    expected[places] = np.stack([data[at : at + 24] for at in offsets[chosen]])
    np.testing.assert_array_equal(out, expected)


def test_short_reads_are_continued(
    pieces: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may give fewer bytes than asked for: here 7 at a time."""
    path, offsets = pieces
    data = np.fromfile(path, np.uint8)
    read = reading.os.preadv
    monkeypatch.setattr(reading.os, "preadv", lambda fd, b, at: read(fd, [b[0][:7]], at))
    out = np.zeros((50, 24), np.uint8)
    reading.read_pieces(path, offsets[:50], out, np.arange(50))
    np.testing.assert_array_equal(out, np.stack([data[at : at + 24] for at in offsets[:50]]))


def test_truncated_file_is_an_error(pieces: tuple[Path, np.ndarray]) -> None:
    path, offsets = pieces
    with path.open("r+b") as file:
        file.truncate(int(offsets[-1]) + 5)
    with pytest.raises(VerificationError, match="in the middle of its data"):
        reading.read_pieces(path, offsets, np.zeros((2000, 24), np.uint8), np.arange(2000))


def test_neighbours_in_file_and_memory_are_read_as_one(
    pieces: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = pieces
    data = np.fromfile(path, np.uint8)
    values: list[list[int]] = []
    read = reading.os.preadv
    monkeypatch.setattr(
        reading.os,
        "preadv",
        lambda fd, b, at: (values.append([len(x) for x in b]), read(fd, b, at))[1],
    )
    # Five neighbours; two more, but swapped in memory; a gap of ten bytes; one.
    offsets = np.array([0, 24, 48, 72, 96, 120, 144, 178])
    places = np.array([3, 4, 5, 6, 7, 1, 0, 9])
    out = np.zeros((10, 24), np.uint8)
    reading.read_pieces(path, offsets, out, places)
    assert values == [[120, 24, 24, 10, 24]]
    np.testing.assert_array_equal(out[places], [data[at : at + 24] for at in offsets])


def test_token_maps_read_past_hdf5_are_what_hdf5_reads(make_store: MakeStore) -> None:
    store = make_store(n_images=9)
    written = features_of(np.arange(store.n_rows), store.shape("patch")).astype(np.float16)
    blocks = np.concatenate([block for _, block in store.blocks("patch", 7)])
    np.testing.assert_array_equal(blocks, written)
    np.testing.assert_array_equal(store.read("patch", np.arange(store.n_rows)[::-1]), written[::-1])


# -- what is kept of a shard that was looked at -----------------------------------------------------


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each array has whose row checksums are read from now on."""
    calls: list[int] = []
    check = shards.array_checksum
    monkeypatch.setattr(
        shards, "array_checksum", lambda rows: (calls.append(len(rows)), check(rows))[1]
    )
    return calls


def test_shard_is_verified_once_and_not_opened_by_hdf5(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    calls = count_looks(monkeypatch)
    monkeypatch.setattr(h5py, "File", None)  # whatever opens a shard through HDF5 now fails
    rows = np.arange(store.n_rows)
    for name in ("pooled", "patch"):
        expected = features_of(rows, store.shape(name)).astype(np.float16)
        for _ in range(3):
            np.testing.assert_array_equal(store.read(name), expected)
            np.testing.assert_array_equal(store.read(name, rows[::-3]), expected[::-3])
    assert len(calls) == 2 * len(store.plan)


def test_changed_shard_is_verified_again(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    store.read("pooled")
    path = store.shard_path(store.plan[1])
    whole = path.read_bytes()
    calls = count_looks(monkeypatch)
    path.unlink()
    with pytest.raises(VerificationError, match="it does not exist"):
        store.read("pooled")
    path.write_bytes(whole[:-100])
    with pytest.raises(VerificationError, match="bytes"):
        store.read("pooled")
    path.write_bytes(store.shard_path(store.plan[0]).read_bytes())
    with pytest.raises(VerificationError):
        store.read("pooled")
    path.write_bytes(whole)
    expected = features_of(np.arange(store.n_rows), store.shape("pooled"))
    np.testing.assert_array_equal(store.read("pooled"), expected.astype(np.float16))
    assert 1 <= len(calls) <= 3  # of this shard alone


def test_offset_cache_is_limited(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CACHE_BYTES", 2 * reading.ENTRY_BYTES)
    store = make_store()
    assert len(store.plan) > 2
    calls = count_looks(monkeypatch)
    expected = features_of(np.arange(store.n_rows), store.shape("pooled")).astype(np.float16)
    for _ in range(2):
        np.testing.assert_array_equal(store.read("pooled"), expected)
    assert len(calls) == 2 * len(store.plan)


def test_store_is_read_by_threads_and_after_fork(make_store: MakeStore) -> None:
    store = make_store()
    expected = features_of(np.arange(store.n_rows), store.shape("patch")).astype(np.float16)
    np.testing.assert_array_equal(store.read("patch"), expected)
    child = os.fork()
    if not child:
        code = 1
        try:
            code = int(not np.array_equal(store.read("patch"), expected))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fresh = Store.open(store.path)
    _ = fresh.plan, fresh.manifest
    with ThreadPoolExecutor(8) as pool:
        for values in pool.map(lambda _: fresh.read("patch"), range(32)):
            np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("rows", [None, [12], [49, 12, 3]])
@pytest.mark.parametrize("name", ["pooled", "patch"])
def test_flipped_bit_is_detected_by_every_reader(
    make_store: MakeStore, name: str, rows: list[int] | None
) -> None:
    store = make_store()
    entry = store.manifest.shards[store.plan[1].name]
    path = store.shard_path(store.plan[1])
    whole = path.read_bytes()
    row_bytes = 2 * int(np.prod(store.shape(name)))
    for folder in (
        entry.offsets[name] + 2 * row_bytes + 3,  # the third row of the second shard, row 12
        entry.offsets[f"{name}.xxh3"] + 2 * 8,
    ):
        data = bytearray(whole)
        data[folder] ^= 4
        path.write_bytes(data)
        for opened in (store, Store.open(store.path)):
            with pytest.raises(VerificationError, match=path.name):
                opened.read(name, rows)
            with pytest.raises(VerificationError, match=path.name):
                list(opened.blocks(name))
    path.write_bytes(whole)
    store.read(name, rows)
