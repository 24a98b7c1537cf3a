"""Flipped bits, cut files, torn images, odd clocks and lock files: never read as good."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pa.config import Config
from pa.config import load as load_config
from pa.data.files import write_parquet
from pa.data.store.reader import Store
from pa.data.store.shards import is_sound
from pa.data.store.verify import Issue, verify
from pa.data.store.writer import claim
from pa.errors import VerificationError
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import StoreReference
from pa.index.build import build
from pa.index.stored import open_index
from pa.maintenance.status import status
from pa.maintenance.verify import CheckResult, verify_indexes, verify_results, verify_stores
from pa.workspace import Workspace
from tests.support.results import linear_result
from tests.torture.conftest import rounds, run_script
from tests.torture.killing import differences, work

Photographs = Callable[..., Path]


@pytest.fixture
def workspace(photographs: Photographs, tmp_path: Path) -> Config:
    """A workspace with a store of four shards, one image of it torn, and two indexes."""
    folder = tmp_path / "ws"
    store = Store.open(work(photographs(16, bad_every=16), folder / "features"))
    for factory in ("SQfp16", "IVF2,Flat"):
        build(store, "pooled", folder / "indexes", factory)
    return load_config(folder)


def only_store(config: Config) -> Store:
    (spec,) = config.features.rglob("spec.json")
    return Store.open(spec.parent)


@pytest.mark.timeout(3600)
def test_flipped_bit_of_shard_is_detected(workspace: Config, tmp_path: Path) -> None:
    """Every one is found, also where HDF5 would hang or crash: it never opens such a file."""
    store = only_store(workspace)
    pristine = shutil.copytree(store.path, tmp_path / "pristine")
    flips = rounds("FLIPS")
    output = run_script("flipping", store.path, pristine, flips, rounds("SEED"), timeout=3600)
    print(output)
    assert output == {"found": flips, "harmless": 0, "hung": 0, "crashed": 0, "silent": []}


def test_flipped_bits_of_features_are_all_detected(workspace: Config, draw: random.Random) -> None:
    import h5py

    store = only_store(workspace)
    for shard in store.plan:
        path = store.shard_path(shard)
        with h5py.File(path) as file:
            arrays = [(data.id.get_offset(), data.id.get_storage_size()) for data in file.values()]
        whole = path.read_bytes()
        for index in (begin + draw.randrange(length) for begin, length in arrays):
            data = bytearray(whole)
            data[index] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
            assert list(verify(store)), f"byte {index} of {path.name}"
            path.write_bytes(whole)
    assert not list(verify(store))


def issues(
    check: Callable[[Workspace], Iterable[CheckResult]], config: Config
) -> dict[Path, Issue | None]:
    return {result.path: result.issue for result in check(Workspace(config.workspace))}


@pytest.mark.parametrize("name", ["manifest.json", "rows.parquet", "spec.json"])
def test_flipped_bit_of_manifest_rows_or_spec_is_detected(
    workspace: Config, draw: random.Random, name: str
) -> None:
    path = only_store(workspace).path / name
    whole = path.read_bytes()
    for _ in range(rounds("FLIPS")):
        data = bytearray(whole)
        index, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        data[index] ^= bit
        path.write_bytes(data)
        (checked,) = verify_stores(Workspace(workspace.workspace), full=False)
        assert checked.damage, f"byte {index}, bit {bit} of {name}"
    path.write_bytes(whole)


@pytest.mark.parametrize("factory", ["SQfp16", "IVF2,Flat"])
@pytest.mark.parametrize("name", ["index.faiss", "ids.npy"])
def test_flipped_bit_of_index_is_detected_and_refused(
    workspace: Config, draw: random.Random, factory: str, name: str
) -> None:
    store = only_store(workspace)
    path = open_index(store, "pooled", workspace.indexes, factory).path / name
    whole = path.read_bytes()
    for _ in range(rounds("FLIPS") // 4):
        data = bytearray(whole)
        data[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        assert issues(verify_indexes, workspace)[path.parent] is not None
        with pytest.raises(VerificationError):
            open_index(store, "pooled", workspace.indexes, factory)
    path.write_bytes(whole)
    assert set(issues(verify_indexes, workspace).values()) == {None}


def test_flipped_bit_of_index_json_is_detected(workspace: Config, draw: random.Random) -> None:
    store = only_store(workspace)
    path = open_index(store, "pooled", workspace.indexes).path / "index.json"
    whole = path.read_bytes()
    fields = json.loads(whole)
    for _ in range(rounds("FLIPS")):
        data = bytearray(whole)
        position, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        data[position] ^= bit
        path.write_bytes(data)
        if issues(verify_indexes, workspace)[path.parent] is None:
            assert json.loads(data) == fields, (position, bit)
    path.write_bytes(whole)


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".safetensors"])
def test_flipped_bit_of_result_is_detected(
    workspace: Config, draw: random.Random, suffix: str
) -> None:
    """All but what leaves the same JSON: the case of an exponent, a digit past the last that counts."""
    store = only_store(workspace)
    result = linear_result(StoreReference.of(store))
    json_path = result.path(workspace.results)
    write_parquet(json_path.with_suffix(".parquet"), pl.DataFrame({"loss": [0.5, 0.25]}))
    json_path.with_suffix(".safetensors").write_bytes(draw.randbytes(500))
    assert write_result(workspace.results, result) == json_path
    assert issues(verify_results, workspace) == {json_path: None}
    path = json_path.with_suffix(suffix)
    whole = path.read_bytes()
    for _ in range(rounds("FLIPS")):
        data = bytearray(whole)
        index, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        data[index] ^= bit
        path.write_bytes(data)
        if issues(verify_results, workspace)[json_path] is None:
            assert suffix == ".json", (index, bit)
            assert json.loads(data) == json.loads(whole), (index, bit)
    path.write_bytes(whole)
    assert issues(verify_results, workspace) == {json_path: None}


def test_truncated_shard_is_never_accepted(workspace: Config, draw: random.Random) -> None:
    store = only_store(workspace)
    path = store.shard_path(store.plan[1])
    whole = path.read_bytes()
    cuts = {0, 1, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(rounds("CUTS")))}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        assert list(verify(store)), f"cut at {cut} of {len(whole)}"
        assert list(verify(store, full=False)), f"cut at {cut} of {len(whole)}, quick"
        assert not is_sound(path)
        for name in store.spec.representations:
            with pytest.raises(VerificationError):
                store.read(name)
        with pytest.raises(VerificationError):
            list(store.blocks("pooled"))


def test_truncated_images_are_listed(photographs: Photographs, tmp_path: Path) -> None:
    images = photographs(300, bad_every=100)
    store = Store.open(work(images, tmp_path / "f"))
    torn = sorted(str(p.relative_to(images)) for p in images.rglob("*.png") if _is_torn(p))
    assert len(torn) == 3
    assert [bad.path for bad in store.bad] == torn
    assert store.n_rows == 300
    assert (~store.valid).sum() == 3
    assert not list(verify(store))
    whole = Store.open(work(photographs(300), tmp_path / "whole"))
    good = store.valid
    assert np.array_equal(store.read("pooled")[good], whole.read("pooled")[good])
    assert not store.read("patch")[~good].any()


def _is_torn(path: Path) -> bool:
    return path.stat().st_size == 200


def test_bytes_are_independent_of_clock(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: random.Random
) -> None:
    """The clock goes back an hour with every look at it, and file times are drawn by lot."""
    images = photographs(24)
    undisturbed = work(images, tmp_path / "one")
    features = tmp_path / "two" / "features"
    shutil.copytree(undisturbed, features / undisturbed.relative_to(tmp_path / "one"))
    store = Store.open(features / undisturbed.relative_to(tmp_path / "one"))
    (store.path / "manifest.json").unlink()
    for shard in store.plan[1::2]:
        store.shard_path(shard).unlink()
    for path in (*features.rglob("*"), *images.rglob("*")):
        moment = draw.uniform(-1e9, 1e10)
        os.utime(path, (moment, moment))
    now = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    config = load_config(tmp_path / "two")
    (entry,) = status(Workspace(config.workspace))
    assert entry.seconds_left is None
    work(images, features)
    assert differences(store.path, undisturbed) == []
    (entry,) = status(Workspace(config.workspace))
    assert entry.is_complete
    index = build(Store.open(store.path), "pooled", config.indexes)
    os.utime(index.path, (0, 0))
    assert open_index(Store.open(store.path), "pooled", config.indexes).n == 24


HOLDER = """
import fcntl, os, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
os.kill(os.getpid(), 9)
"""


def test_lock_files_of_dead_processes_do_not_block(
    photographs: Photographs, tmp_path: Path
) -> None:
    """Left by another host, in another format, and by a process that was killed holding it."""
    images = photographs(12)
    undisturbed = work(images, tmp_path / "one")
    store = Store.open(work(images, tmp_path / "two"))
    (store.path / "manifest.json").unlink()
    for shard in store.plan:
        store.shard_path(shard).unlink()
    locks = store.path / "locks"
    locks.mkdir()
    (locks / "shard-00000.h5.lock").write_text("4242@node7.cluster\n")
    (locks / "manifest.lock").write_text('{"host": "node7", "pid": 1}')
    killed = locks / "shard-00001.h5.lock"
    subprocess.run([sys.executable, "-c", HOLDER, str(killed)], check=False)
    for name in ("shard-00002.h5", "manifest.json"):
        (store.path / f"{name}.node7-4242-0123abcd.partial").write_bytes(b"torn")
    began = time.monotonic()
    work(images, tmp_path / "two")
    assert time.monotonic() - began < 60
    assert differences(store.path, undisturbed) == []


def test_lock_of_living_process_is_waited_for(photographs: Photographs, tmp_path: Path) -> None:
    images = photographs(12)
    store = Store.open(work(images, tmp_path / "f"))
    (store.path / "manifest.json").unlink()
    store.shard_path(store.plan[1]).unlink()
    lock = store.path / "locks" / f"{store.plan[1].name}.lock"
    lock.parent.mkdir()
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with claim(store, store.plan[1]) as writer:
            assert writer is None
    with claim(store, store.plan[1]) as writer:
        assert writer is not None
        writer.append(
            {n: np.zeros((4, *s), np.float32) for n, s in store.spec.representations.items()},
            np.ones(4, bool),
        )
    assert not store.missing()
