"""The contract of a store: existing files are complete, read rows equal written rows."""

from __future__ import annotations

import errno
import filecmp
import itertools
import json
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import xxhash

from pa.data.files import HoldingFile, replacing, storage_errors
from pa.data.store import shards
from pa.data.store.checksums import FileChecksum
from pa.data.store.reader import Store
from pa.data.store.shards import from_disk, plan, to_disk
from pa.data.store.stream import Stream
from pa.data.store.verify import verify
from pa.data.store.writer import adopt, claim, create, finish
from pa.errors import (
    FingerprintError,
    MissingError,
    OutOfRangeError,
    StorageError,
    UsageError,
    VerificationError,
)
from tests.support.stores import TOKENS, WIDTH, features_of, fill, make_rows, make_spec

MakeStore = Callable[..., Store]


def arrays_of(store: Store, n: int) -> dict[str, npt.NDArray[np.float32]]:
    """Known features of the first n rows, for every representation of a store."""
    shapes = store.spec.representations
    return {name: features_of(np.arange(n), tuple(shape)) for name, shape in shapes.items()}


# -- the plan ---------------------------------------------------------------------------------


def test_plan_never_cuts_an_image_and_covers_every_row() -> None:
    image = np.repeat(np.arange(10), [5, 1, 9, 30, 2, 2, 2, 2, 2, 2])
    actual = plan(image, 12)
    assert [(s.start, s.stop) for s in actual] == [(0, 6), (6, 15), (15, 45), (45, 57)]
    assert actual[3].name == "shard-00003.h5"
    for before, after in itertools.pairwise(actual):
        assert before.stop == after.start
        assert image[before.stop - 1] != image[after.start]


def test_plan_of_the_first_images_is_the_beginning_of_the_whole() -> None:
    image = np.repeat(np.arange(50), 7)
    whole, some = plan(image, 30), plan(image[: 7 * 20], 30)
    assert some[:-1] == whole[: len(some) - 1]


def test_plan_of_nothing_is_empty() -> None:
    assert plan(np.array([], dtype=np.int64), 10) == []


# -- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["fp16", "bf16", "fp32"])
def test_read_rows_equal_written_rows(make_store: MakeStore, storage: str) -> None:
    store = make_store(storage=storage)
    expected = features_of(np.arange(50), (TOKENS, WIDTH))
    assert np.array_equal(store.read("patch"), expected)
    some = [49, 0, 13, 13, 7]
    assert np.array_equal(store.read("patch", some), expected[some])
    blocks = list(store.blocks("patch", 5))
    assert [start for start, _ in blocks] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert np.array_equal(np.concatenate([block for _, block in blocks]), expected)


def test_reading_no_rows_gives_an_empty_array(make_store: MakeStore) -> None:
    assert make_store().read("pooled", []).shape == (0, WIDTH)


def test_bf16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.3895314e38, 0.1], dtype=np.float32)
    back = from_disk(to_disk(values, "bf16"), "bf16")
    # 1 + 2⁻⁸ lies between 1 and 1 + 2⁻⁷: even is 1. 1 + 3·2⁻⁸: even is 1 + 2⁻⁶.
    assert back[:3].tolist() == [1.0, 1.0, 1.015625]
    assert np.allclose(back, values, rtol=2**-8)


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6)])
def test_int8_keeps_each_vector_to_half_a_step(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(3).normal(size=(20, *shape)).astype(np.float32)
    values *= 10.0 ** np.random.default_rng(4).integers(-3, 4, (20, *shape[:-1], 1))
    values[7] = 0
    on_disk = to_disk(values, "int8")
    assert (on_disk.dtype, on_disk.shape) == (np.uint8, (20, *shards.disk_shape(shape, "int8")))
    back = from_disk(on_disk, "int8")
    assert (back.dtype, back.shape) == (np.float32, values.shape)
    largest = np.abs(values).max(axis=-1, keepdims=True)
    assert (np.abs(back - values) <= largest / 127 / 2 * (1 + 1e-5)).all()
    assert not back[7].any()
    at = np.abs(values).argmax(axis=-1)[..., None]  # the largest value is kept
    np.testing.assert_allclose(
        np.take_along_axis(back, at, -1), np.take_along_axis(values, at, -1), rtol=1e-6
    )


@pytest.mark.parametrize("tiny", [1e-45, 1e-43, 3e-40, 1e-38])
def test_int8_of_the_smallest_numbers(tiny: float) -> None:
    values = np.array([[tiny, -tiny, 0, tiny / 2]], np.float32)
    back = from_disk(to_disk(values, "int8"), "int8")
    assert np.isfinite(back).all()
    assert np.abs(back - values).max() <= 64 * tiny


def test_int8_store_is_read_like_others(make_store: MakeStore) -> None:
    store = make_store(storage="int8")
    expected = features_of(np.arange(50), (TOKENS, WIDTH))
    quantised = from_disk(to_disk(expected, "int8"), "int8")
    assert np.array_equal(store.read("patch"), quantised)
    some = np.arange(49, 0, -1)  # many: by scatter
    assert np.array_equal(store.read("patch", some), quantised[some])
    assert np.array_equal(store.read("patch", [4, 4, 1]), quantised[[4, 4, 1]])
    assert np.array_equal(np.concatenate([b for _, b in store.blocks("patch", 5)]), quantised)
    assert store.read("pooled").shape == (50, WIDTH)
    stream = Stream(store, "patch", np.arange(50))
    for places, features in stream.batches([np.arange(50)], 16):
        assert np.array_equal(features, quantised[places])
    assert list(verify(store)) == []


def test_row_outside_the_store(make_store: MakeStore) -> None:
    with pytest.raises(OutOfRangeError, match=r"row id 50 is outside .* rows 0 to 49"):
        make_store().read("pooled", [3, 50])
    with pytest.raises(IndexError):
        make_store().read("pooled", [-1])


def test_missing_representation_names_extract_command(make_store: MakeStore) -> None:
    with pytest.raises(UsageError) as caught:
        make_store().read("cls")
    assert "it holds pooled, patch" in str(caught.value)
    assert "--features pooled,patch,cls" in str(caught.value)
    assert "--replace" in str(caught.value)


def test_bad_images_keep_their_rows(make_store: MakeStore) -> None:
    store = make_store(bad_images=(0, 7))
    assert len(store.rows) == 50
    assert np.flatnonzero(~store.valid).tolist() == [0, 1, 2, 3, 4, 35, 36, 37, 38, 39]
    assert [(bad.path, bad.reason) for bad in store.bad] == [
        ("c0/0000.png", "is torn"),
        ("c1/0007.png", "is torn"),
    ]
    assert not store.read("pooled", [2, 36]).any()


def _read_in_child(path: str, rows: list[int]) -> float:
    return float(Store.open(path).read("pooled", rows).sum())


def test_processes_read_at_once(make_store: MakeStore) -> None:
    store = make_store()
    store.read("pooled", [0])
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_read_in_child, [(str(store.path), [0, 20, 49])] * 4)
    assert len(set(sums)) == 1


# -- opening ----------------------------------------------------------------------------------


def test_missing_store_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no feature store at .*nothing"):
        Store.open(tmp_path / "nothing")


def test_unfinished_store_states_progress_and_command(make_store: MakeStore) -> None:
    store = make_store()
    (store.path / "manifest.json").unlink()
    store.shard_path(store.plan[1]).unlink()
    with pytest.raises(MissingError) as caught:
        Store.open(store.path)
    assert "4 of 5 shards exist" in str(caught.value)
    assert "pa extract --encoder ramp --dataset toy --split val --view grid" in str(caught.value)


def test_edited_spec_is_refused(make_store: MakeStore) -> None:
    store = make_store()
    file = store.path / "spec.json"
    file.write_text(file.read_text().replace('"ramp"', '"other"'))
    with pytest.raises(
        VerificationError, match=r"spec\.json is damaged: its checksum does not match"
    ):
        Store.open(store.path)


def test_torn_or_future_spec_is_refused(make_store: MakeStore) -> None:
    store = make_store()
    file = store.path / "spec.json"
    whole = file.read_text()
    file.write_text(whole[:50])
    with pytest.raises(VerificationError, match=r"spec\.json is damaged: Unterminated string"):
        Store.open(store.path)
    fields = json.loads(whole)
    file.write_text(json.dumps({**fields, "format": 99}))
    with pytest.raises(FingerprintError, match="store format 99, this version reads 2"):
        Store.open(store.path)


# -- writing ----------------------------------------------------------------------------------


def test_stores_of_equal_spec_are_equal_byte_for_byte(make_store: MakeStore) -> None:
    first, two = make_store(name="one"), make_store(name="two", filled=False)
    for shard in reversed(two.missing()):  # in another order
        with claim(two, shard) as writer:
            assert writer is not None
            numbers = np.arange(shard.start, shard.stop)
            for part in np.array_split(numbers, 3):  # in other portions
                arrays = {
                    n: features_of(part, tuple(s)) for n, s in two.spec.representations.items()
                }
                writer.append(arrays, np.ones(len(part), bool))
    finish(two)
    names = sorted(path.name for path in first.path.iterdir())
    assert names == sorted(path.name for path in two.path.iterdir())
    assert filecmp.cmpfiles(first.path, two.path, names, shallow=False) == (names, [], [])


def test_failed_shard_leaves_no_file(make_store: MakeStore) -> None:
    store = make_store(filled=False)
    with pytest.raises(KeyboardInterrupt), claim(store, store.plan[0]) as writer:
        assert writer is not None
        raise KeyboardInterrupt
    assert len(store.missing()) == 5
    assert not list(store.path.glob("*.partial"))


def test_incomplete_shard_does_not_count(make_store: MakeStore) -> None:
    store = make_store(filled=False)
    with (
        pytest.raises(StorageError, match=r"shard-00000.h5: 3 of 10 rows were written"),
        claim(store, store.plan[0]) as writer,
    ):
        assert writer is not None
        arrays = arrays_of(store, 3)
        writer.append(arrays, np.ones(3, bool))
    assert len(store.missing()) == 5


def test_claimed_shard_is_not_given_twice(make_store: MakeStore) -> None:
    store = make_store(filled=False)
    with pytest.raises(StorageError), claim(store, store.plan[0]) as first:
        assert first is not None
        with claim(Store.open(store.path, incomplete=True), store.plan[0]) as second:
            assert second is None


def test_non_finite_features_are_refused_with_row(make_store: MakeStore) -> None:
    store = make_store(filled=False)
    arrays = {
        n: features_of(np.arange(10), tuple(s)) for n, s in store.spec.representations.items()
    }
    arrays["pooled"][4, 2] = np.nan
    with (
        pytest.raises(UsageError, match="pooled of row 4 holds NaN or infinity"),
        claim(store, store.plan[0]) as writer,
    ):
        assert writer is not None
        writer.append(arrays, np.ones(10, bool))


def test_features_too_large_for_half_precision(make_store: MakeStore) -> None:
    store = make_store(filled=False)
    arrays = {
        n: features_of(np.arange(10), tuple(s)) for n, s in store.spec.representations.items()
    }
    arrays["patch"][6, 1, 1] = -7e4
    with (
        pytest.raises(UsageError, match=r"patch of row 6 reaches 7e\+04, more than fp16 can hold"),
        claim(store, store.plan[0]) as writer,
    ):
        assert writer is not None
        writer.append(arrays, np.ones(10, bool))


KILLED = """
import os, signal, sys
import numpy as np
from pa.data.store.reader import Store
from pa.data.store.writer import claim
store = Store.open(sys.argv[1], incomplete=True)
with claim(store, store.plan[0]) as writer:
    arrays = {n: np.ones((4, *s), np.float32) for n, s in store.spec.representations.items()}
    writer.append(arrays, np.ones(4, bool))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_loses_its_shard_only(make_store: MakeStore) -> None:
    store, undisturbed = make_store(name="killed", filled=False), make_store(name="whole")
    killed = subprocess.run([sys.executable, "-c", KILLED, store.path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(store.path.glob("*.partial"))) == 1
    assert len(store.missing()) == 5
    fill(store)
    names = sorted(path.name for path in undisturbed.path.iterdir())
    assert sorted(path.name for path in store.path.iterdir()) == names
    assert filecmp.cmpfiles(store.path, undisturbed.path, names, shallow=False)[1:] == ([], [])


FULL = """
import resource, signal, sys
import numpy as np
from pa.data.store.reader import Store
from pa.data.store.writer import claim
from pa.errors import StorageError
store = Store.open(sys.argv[1], incomplete=True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    with claim(store, store.plan[0]) as writer:
        n = store.plan[0].n_rows
        arrays = {k: np.ones((n, *s), np.float32) for k, s in store.spec.representations.items()}
        writer.append(arrays, np.ones(n, bool))
except StorageError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("limit", [0, 700, 2500])
def test_full_disk_is_reported(make_store: MakeStore, limit: int) -> None:
    store = make_store(filled=False)
    child = subprocess.run(
        [sys.executable, "-c", FULL, store.path, str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 1, child.stderr
    assert "no space left while writing" in child.stdout
    assert "run the same command to resume" in child.stdout
    assert len(store.missing()) == 5
    assert not list(store.path.glob("*.partial"))
    fill(store)
    assert not list(verify(store))


def test_storage_errors_in_words() -> None:
    x = Path("x")
    denied = r"cannot write x \(Permission denied\)"
    with pytest.raises(StorageError, match=denied), storage_errors(x):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(StorageError, match="no space left while writing x"), storage_errors(x):
        raise RuntimeError("Can't write (file write failed: errno = 28, error message = '…')")
    with pytest.raises(RuntimeError, match="something else"), storage_errors(x):
        raise RuntimeError("something else")


def test_replacing_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(file) as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


# -- adopting ---------------------------------------------------------------------------------


def test_shards_of_the_first_images_are_adopted(make_store: MakeStore, tmp_path: Path) -> None:
    some, whole = make_store(n_images=7, name="some"), make_store(name="whole", filled=False)
    assert adopt(whole, some) == 3  # 7 images = 3 full shards of two images, and a rest
    assert len(whole.missing()) == 2
    fill(whole)
    assert not list(verify(whole))


def test_shards_of_other_weights_are_not_adopted(make_store: MakeStore, tmp_path: Path) -> None:
    rows = make_rows(10, 5)
    spec = make_spec(rows, weights="cd")
    other = create(tmp_path / "other", spec, rows, {"root": "/photos"}, 12)
    assert adopt(other, make_store()) == 0


# -- verify -----------------------------------------------------------------------------------


def test_intact_store_has_no_issue(make_store: MakeStore) -> None:
    assert list(verify(make_store(bad_images=(3,)))) == []


def test_store_of_older_format_is_refused_with_command(make_store: MakeStore) -> None:
    store = make_store()
    path = store.path / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(FingerprintError, match="store format 1") as caught:
        Store.open(store.path)
    assert store.command in str(caught.value)


def test_manifest_with_misnamed_checksum_is_damaged(make_store: MakeStore) -> None:
    """One flipped bit makes "chec{sum" of it: such a manifest is not one of an earlier version."""
    store = make_store()
    path = store.path / "manifest.json"
    path.write_text(path.read_text().replace('"checksum":', '"chec{sum":'))
    with pytest.raises(VerificationError, match="its checksum does not match"):
        _ = Store.open(store.path).manifest


def test_row_table_is_read_once(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of a complete store need it not at all: the manifest says where shards begin."""
    new_store = make_store()
    calls: list[list[str] | None] = []
    read = Store._read_rows
    monkeypatch.setattr(
        Store, "_read_rows", lambda self, columns: (calls.append(columns), read(self, columns))[1]
    )
    store = Store.open(new_store.path)
    store.read("pooled")
    assert calls == []
    assert store.plan == shards.plan(store.rows["image"].to_numpy(), store.shard_rows)
    store.read("pooled", [1])
    assert calls == [None]
    (new_store.path / "manifest.json").unlink()
    unfinished = Store.open(new_store.path, incomplete=True)
    assert unfinished.plan == store.plan
    assert calls == [None, ["image"]]


def test_manifest_records_checksum_of_every_file(make_store: MakeStore) -> None:
    store = make_store()
    for shard in store.plan:
        data = store.shard_path(shard).read_bytes()
        assert store.manifest.shards[shard.name].file_checksum == FileChecksum(
            len(data), xxhash.xxh3_128_hexdigest(data)
        )
    assert not (store.path / "locks").exists()


@pytest.mark.parametrize("note", [None, "", "{}", '{"bytes": 1, "xxh3": "0", "mtime": 0}'])
def test_manifest_recomputes_lost_checksum(make_store: MakeStore, note: str | None) -> None:
    store = make_store(filled=False)
    fill(store, finish=False)
    for path in (store.path / "locks").glob("*.checksum"):
        path.unlink() if note is None else path.write_text(note)
    finish(store)
    store = Store.open(store.path)
    assert list(verify(store)) == []
    expected = FileChecksum.of(store.shard_path(store.plan[0]))
    assert store.manifest.shards[store.plan[0].name].file_checksum == expected


def test_shard_that_grew_is_not_opened(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    path = store.shard_path(store.plan[1])
    with path.open("ab") as file:
        file.write(b"!")
    size = path.stat().st_size
    with pytest.raises(VerificationError, match=f"it has {size:,} bytes, {size - 1:,} were"):
        store.read("pooled", [12])
    monkeypatch.setattr(h5py, "File", None)  # whatever opens a shard now fails
    assert [p.what for p in verify(store) if p.file == path] == [
        f"it has {size:,} bytes, {size - 1:,} were written"
    ]


def test_foreign_shard_stops_manifest(make_store: MakeStore) -> None:
    store = make_store(filled=False)
    fill(store, finish=False)
    store.shard_path(store.plan[3]).replace(store.shard_path(store.plan[1]))
    with claim(store, store.plan[3]) as writer:
        assert writer is not None
        writer.append(arrays_of(store, 10), np.ones(10, bool))
    with pytest.raises(VerificationError, match="made from other images"):
        finish(store)


def test_verify_finds_every_flipped_byte_of_the_features(make_store: MakeStore) -> None:
    store = make_store()
    path = store.shard_path(store.plan[2])
    with h5py.File(path) as file:
        offset = file["pooled"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    problems = [str(problem) for problem in verify(store)]
    assert problems == [f"{path}: its bytes have changed since they were written"]
    assert list(verify(store, full=False)) == []
    (store.path / "manifest.json").unlink()
    store = Store.open(store.path, incomplete=True)
    problems = [str(problem) for problem in verify(store)]
    assert problems == [
        f"{path}: pooled: checksum differs, bytes have changed since they were written"
    ]
    assert list(verify(store, full=False)) == []


def test_verify_never_reads_a_truncated_shard_as_good(make_store: MakeStore) -> None:
    store = make_store()
    path = store.shard_path(store.plan[0])
    whole = path.read_bytes()
    for part in np.random.default_rng(0).uniform(0, 1, 25):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert list(verify(store)), f"{part:.3f} of the shard was taken for whole"
        with pytest.raises(VerificationError, match="is not a readable shard"):
            store.read("pooled")


def test_verify_finds_a_missing_and_a_foreign_shard(make_store: MakeStore) -> None:
    store = make_store()
    store.shard_path(store.plan[0]).unlink()
    store.shard_path(store.plan[3]).replace(store.shard_path(store.plan[1]))
    text = "\n".join(str(problem) for problem in verify(store))
    assert "shard-00000.h5: missing" in text
    assert "shard-00001.h5: its bytes have changed" in text
    (store.path / "manifest.json").unlink()
    unfinished = Store.open(store.path, incomplete=True)
    text = "\n".join(str(problem) for problem in verify(unfinished))
    assert "shard-00001.h5: holds rows 30+10, expected 10+10" in text
    with pytest.raises(VerificationError, match=r"it holds rows 30\+10, not 10\+10"):
        unfinished.read("pooled", [13])


def test_verify_finds_changed_rows(make_store: MakeStore) -> None:
    store = make_store()
    store.rows.reverse().write_parquet(store.path / "rows.parquet")
    changed = Store.open(store.path)
    assert ["its checksum does not match the manifest" in p.what for p in verify(changed)] == [True]
    with pytest.raises(VerificationError, match="Delete the folder"):
        _ = changed.rows


def test_verify_finds_infinity(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shards.LARGEST, "fp16", np.inf)
    store = make_store(filled=False)
    with claim(store, store.plan[0]) as writer:
        assert writer is not None
        arrays = arrays_of(store, 10)
        arrays["pooled"][1, 1] = np.inf
        writer.append(arrays, np.ones(10, bool))
    whats = [problem.what for problem in verify(store)]
    assert "pooled: NaN or infinity in rows 0+256" in whats


def test_shard_info_of_a_foreign_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = [1]
    with pytest.raises(VerificationError, match="is not a readable shard"):
        shards.read_info(tmp_path / "x.h5")


def test_interrupt_during_hdf5_write_is_raised(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 swallows exceptions of the Python file it writes to, a KeyboardInterrupt too."""
    store = make_store(filled=False)
    original = HoldingFile.write

    def write_and_interrupt(self: HoldingFile, data: object) -> int:
        signal.raise_signal(signal.SIGINT)
        return original(self, data)

    monkeypatch.setattr(HoldingFile, "write", write_and_interrupt)
    with pytest.raises(KeyboardInterrupt), claim(store, store.plan[0]) as writer:
        assert writer is not None
        writer.append(arrays_of(store, 10), np.ones(10, bool))
    assert len(store.missing()) == 5
    assert not list(store.path.glob("*.partial"))


# -- damage is never read as good -------------------------------------------------------------


def test_swapped_shards_are_not_read(make_store: MakeStore) -> None:
    store = make_store()
    first, two = store.shard_path(store.plan[0]), store.shard_path(store.plan[1])
    spare = first.with_suffix(".spare")
    first.rename(spare)
    two.rename(first)
    spare.rename(two)
    with pytest.raises(VerificationError, match="checksums of the rows"):
        store.read("pooled", [3])


def test_shard_of_another_run_is_not_read(make_store: MakeStore) -> None:
    store, other = make_store(name="a"), make_store(name="b", bad_images=(1,))
    other.shard_path(other.plan[0]).replace(store.shard_path(store.plan[0]))
    with pytest.raises(VerificationError, match="checksums of the rows"):
        store.read("pooled", [3])


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"null", b'{"format": 1}'])
def test_damaged_manifest_names_repair_command(make_store: MakeStore, content: bytes) -> None:
    store = make_store()
    (store.path / "manifest.json").write_bytes(content)
    for work in (lambda s: s.valid, lambda s: s.read("pooled"), lambda s: s.rows):
        with pytest.raises(VerificationError, match=r"manifest.json is damaged"):
            work(Store.open(store.path, incomplete=True))
    assert len(list(verify(Store.open(store.path, incomplete=True)))) == 1


@pytest.mark.parametrize("content", ["[]", "null", '{"format": 1}', '{"format": 1, "spec": 3}'])
def test_damaged_spec_is_an_error(make_store: MakeStore, content: str) -> None:
    store = make_store()
    (store.path / "spec.json").write_text(content)
    with pytest.raises(FingerprintError, match=r"spec\.json"):
        Store.open(store.path)


@pytest.mark.parametrize("damage", [b"", b"garbage"])
def test_damaged_row_table_is_an_error(make_store: MakeStore, damage: bytes) -> None:
    store = make_store()
    (store.path / "rows.parquet").write_bytes(damage)
    with pytest.raises(VerificationError, match=r"rows\.parquet is damaged"):
        _ = Store.open(store.path).rows
    (store.path / "rows.parquet").unlink()
    with pytest.raises(VerificationError, match=r"rows\.parquet is damaged"):
        _ = Store.open(store.path).rows
    (store.path / "manifest.json").unlink()
    with pytest.raises(VerificationError, match=r"rows\.parquet is damaged"):
        _ = Store.open(store.path, incomplete=True).plan


def test_damaged_shard_is_not_reused(make_store: MakeStore) -> None:
    some, whole = make_store(n_images=7, name="some"), make_store(name="whole", filled=False)
    path = some.shard_path(some.plan[1])
    with h5py.File(path) as file:
        offset = file["pooled"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    assert adopt(whole, some) == 2


def test_empty_shard_is_reported_on_completion(make_store: MakeStore) -> None:
    store = make_store()
    (store.path / "manifest.json").unlink()
    store.shard_path(store.plan[1]).write_bytes(b"")
    with pytest.raises(VerificationError, match=r"shard-00001.h5 is not a readable shard"):
        finish(store)


REPAIR = """
import sys
from pa.data.store.reader import Store
from pa.data.store.writer import claim, finish
from tests.support.stores import fill
store = Store.open(sys.argv[1], incomplete=True)
while store.missing():
    for shard in store.missing():
        with claim(store, shard) as writer:
            if writer is not None:
                import numpy as np
                from tests.support.stores import features_of
                shapes = store.spec.representations
                numbers = np.arange(shard.start, shard.stop)
                arrays = {n: features_of(numbers, tuple(s)) for n, s in shapes.items()}
                writer.append(arrays, np.ones(shard.n_rows, bool))
finish(store)
"""


def test_concurrent_processes_repair_complete_store(make_store: MakeStore) -> None:
    store = make_store(n_images=60, shard_rows=10)
    for shard in store.plan[:25]:
        store.shard_path(shard).unlink()
    repository = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", REPAIR, str(store.path)]
    workers = [subprocess.Popen(command, cwd=repository) for _ in range(3)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0, 0]
    assert not list(verify(store))
    assert sorted(p.suffix for p in store.path.iterdir() if p.suffix != ".h5") == [
        ".json",
        ".json",
        ".parquet",
    ]


def test_first_of_two_creators_wins(make_store: MakeStore, tmp_path: Path) -> None:
    rows = make_rows(4, 5)
    spec = make_spec(rows)
    path = tmp_path / "s"
    first = create(path, spec, rows, {"root": "/a"}, 12)
    assert create(path, spec, rows, {"root": "/b"}, 5).shard_rows == first.shard_rows == 12


def test_share_rows_keeps_one_table(make_store: MakeStore) -> None:
    first, second = (Store.open(make_store(name=name).path) for name in ("first", "second"))
    second.share_rows(first)
    assert second.rows is first.rows
    assert np.array_equal(second.read("pooled", [3, 0]), first.read("pooled", [3, 0]))
