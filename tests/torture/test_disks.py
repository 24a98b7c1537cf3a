"""Disks that are really full and places that are really read-only: nothing is lost or half there."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from pa.cli import cli
from pa.config import load as load_config
from pa.data.files import write_json, write_parquet
from pa.data.store.reader import Store
from pa.data.store.verify import verify
from pa.data.store.writer import finish
from pa.errors import StorageError
from pa.evaluate.result_files import write_result
from pa.extract import run as extraction
from pa.index.build import build
from pa.index.search import search
from pa.index.stored import open_index
from pa.maintenance.gc import find_garbage
from pa.maintenance.repair import repair
from pa.maintenance.status import status
from pa.maintenance.verify import verify as verify_workspace
from pa.workspace import Workspace
from tests.support.results import linear_result
from tests.torture.killing import differences, work

Photographs = Callable[..., Path]
TinyDisk = Callable[[str], Path]
ReadOnly = Callable[[Path], Path]
PAGE = 4096


def fill_up(disk: Path, leave_pages: int = 0) -> Path:
    """Fill a disk except for some pages. Return the file that fills it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        file.truncate(max(0, file.seek(0, os.SEEK_END) - leave_pages * PAGE))
    return ballast


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".partial" in path.name]


def test_disk_full_while_shards_are_written(
    photographs: Photographs,
    tiny_disk: TinyDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every page: in rows, spec, the first shard, a later one, the manifest or the log."""
    monkeypatch.setattr(extraction, "free_bytes", lambda path: 1 << 60)
    images = photographs(12)
    undisturbed = work(images, tmp_path / "one")
    disk = tiny_disk("1m")
    features = disk / "features"
    stopped_at = set()
    for pages in range(24):
        shutil.rmtree(features, ignore_errors=True)
        ballast = fill_up(disk, pages)
        try:
            work(images, features)
        except StorageError as error:
            stopped_at |= set(re.findall(r"no space left while writing \S*/(\S+)\. ", str(error)))
        else:
            break
        assert left_behind(disk) == []
        for spec in features.rglob("spec.json"):
            store = Store.open(spec.parent, incomplete=True)
            assert {problem.what for problem in verify(store)} <= {"missing"}
        ballast.unlink()
        store_path = work(images, features)
        assert differences(store_path, undisturbed) == []
    else:
        pytest.fail("the disk was never large enough")
    print(stopped_at)
    assert {"rows.parquet", "spec.json", "shard-00000.h5", "manifest.json"} <= stopped_at


def test_disk_full_while_the_manifest_is_written(
    photographs: Photographs, tiny_disk: TinyDisk
) -> None:
    disk = tiny_disk("1m")
    images = photographs(12)
    store = Store.open(work(images, disk / "features"))
    (store.path / "manifest.json").unlink()
    ballast = fill_up(disk)
    unfinished = Store.open(store.path, incomplete=True)
    with pytest.raises(StorageError, match=r"no space left while writing .*manifest\.json"):
        finish(unfinished)
    assert left_behind(disk) == []
    assert not unfinished.is_complete
    ballast.unlink()
    finish(unfinished)
    assert not list(verify(Store.open(store.path)))


def test_disk_full_while_an_index_is_written(photographs: Photographs, tiny_disk: TinyDisk) -> None:
    disk = tiny_disk("1m")
    store = Store.open(work(photographs(40), disk / "features"))
    kept = build(store, "pooled", disk / "indexes", "Flat")
    before = [hit.row for hit in search(kept, [3], k=5)[0].neighbours]
    for pages in (0, 1):
        ballast = fill_up(disk, pages)
        for factory in ("SQfp16", "Flat"):
            with pytest.raises(StorageError, match="no space left"):
                build(store, "pooled", disk / "indexes", factory)
        assert left_behind(disk) == []
        again = open_index(store, "pooled", disk / "indexes", "Flat", verify=True)
        assert [hit.row for hit in search(again, [3], k=5)[0].neighbours] == before
        ballast.unlink()
    assert build(store, "pooled", disk / "indexes").n == 40


def test_disk_full_while_a_result_is_written(tiny_disk: TinyDisk) -> None:
    disk = tiny_disk("256k")
    path = write_result(disk / "results", linear_result(accuracy=0.5))
    before = path.read_bytes()
    ballast = fill_up(disk)
    with pytest.raises(StorageError, match="no space left"):
        write_result(disk / "results", linear_result(accuracy=0.25))
    assert path.read_bytes() == before
    assert left_behind(disk) == []
    ballast.unlink()
    write_result(disk / "results", linear_result(accuracy=0.25))
    assert path.read_bytes() != before


@pytest.mark.parametrize("pages", [0, 1, 5])
def test_disk_full_while_a_table_is_written(tiny_disk: TinyDisk, pages: int) -> None:
    disk = tiny_disk("256k")
    path = disk / "results" / "t" / "a.parquet"
    old = pl.DataFrame({"x": [1, 2]})
    write_parquet(path, old)
    large = pl.DataFrame({"x": np.random.default_rng(0).random(5000)})
    ballast = fill_up(disk, pages)
    with pytest.raises(StorageError, match="no space left"):
        write_parquet(path, large)
    assert pl.read_parquet(path).equals(old)
    assert left_behind(disk) == []
    ballast.unlink()
    write_parquet(path, large)
    assert pl.read_parquet(path).equals(large)


def test_read_only_workspace_can_be_read(
    photographs: Photographs, read_only: ReadOnly, tmp_path: Path
) -> None:
    images = photographs(12)
    folder = tmp_path / "ws"
    store = Store.open(work(images, folder / "features"))
    index = build(store, "pooled", folder / "indexes")
    expected = [hit.row for hit in search(index, [3], k=5)[0].neighbours]
    config = load_config(shown := read_only(folder))
    workspace = Workspace(shown)
    (entry,) = status(workspace)
    assert entry.is_complete
    verification = verify_workspace(workspace)
    assert [check.issues for check in verification.stores] == [[]]
    assert {check.issue for check in verification.indexes} == {None}
    assert find_garbage(workspace) == []
    seen = Store.open(entry.path)
    assert np.array_equal(seen.read("pooled"), store.read("pooled"))
    again = open_index(seen, "pooled", config.indexes)
    assert [hit.row for hit in search(again, [3], k=5)[0].neighbours] == expected
    assert work(images, shown / "features") == seen.path  # it is complete: nothing to write

    with pytest.raises(StorageError, match=r"cannot write .*Read-only"):
        build(seen, "pooled", config.indexes, "Flat")
    with pytest.raises(StorageError, match=r"cannot write .*Read-only"):
        write_json(shown / "results" / "x.json", {})


def test_read_only_unfinished_store_is_reported(
    photographs: Photographs, read_only: ReadOnly, tmp_path: Path
) -> None:
    images = photographs(12)
    store = Store.open(work(images, tmp_path / "ws" / "features"))
    (store.path / "manifest.json").unlink()
    store.shard_path(store.plan[1]).unlink()
    shown = read_only(tmp_path / "ws")
    with pytest.raises(StorageError, match=r"cannot write .*Read-only.*--workspace"):
        work(images, shown / "features")
    outcome = CliRunner().invoke(cli, ["-w", str(shown), "status"])
    assert "2/3 shards, no active writer" in outcome.stdout


def test_repair_where_nothing_can_be_removed(
    photographs: Photographs, read_only: ReadOnly, tmp_path: Path
) -> None:
    """A file that could not be removed is not reported as removed."""
    store = Store.open(work(photographs(12), tmp_path / "ws" / "features"))
    manifest = store.path / "manifest.json"
    manifest.write_text("{")
    shown = read_only(tmp_path / "ws")
    workspace = Workspace(shown)
    verification = verify_workspace(workspace)
    with pytest.raises(StorageError, match="Read-only"):
        repair(workspace, verification)
    assert manifest.exists()
