"""`pa gc`, and commands without a workspace or a store."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from pa.data.files import (
    is_abandoned,
    is_held,
    locked_partial,
    owner,
    partial_path,
    remove_stale,
)
from pa.data.store.reader import Store
from pa.errors import MissingError
from pa.index.build import build
from pa.maintenance.gc import delete, find_garbage
from pa.workspace import Workspace
from tests.support.photos import Hold, Run, unfinish

DEAD = 2**22 + 1  # above the largest process id of Linux
HERE = socket.gethostname().split(".")[0]


def test_gc_of_a_clean_workspace(run: Run, store: Store, workspace: Path) -> None:
    build(store, "pooled", workspace / "indexes")
    assert run("gc").stdout == "nothing to delete.\n"


@pytest.mark.parametrize("command", ["gc", "verify"])
def test_missing_workspace_is_reported(run: Run, workspace: Path, command: str) -> None:
    with pytest.raises(MissingError, match=f"workspace {workspace} does not exist"):
        run(command)


def test_empty_workspace_is_reported(run: Run, workspace: Path) -> None:
    workspace.mkdir()
    assert run("gc").stdout == "nothing to delete.\n"
    assert run("verify").stdout == "nothing to verify.\n"
    assert "no store in" in run("status").stdout


@pytest.mark.parametrize("command", ["status", "verify"])
@pytest.mark.parametrize(
    "words",
    [("--encoder", "mean-color"), ("--dataset", "fotos"), ("--store", "0123")],
    ids=lambda words: words[0],
)
def test_missing_store_is_reported(
    run: Run, store: Store, command: str, words: tuple[str, str]
) -> None:
    with pytest.raises(MissingError) as raised:
        run(command, *words)
    assert f"no store for {' '.join(words)}" in str(raised.value)
    assert f"--store {store.fingerprint[:8]}" in str(raised.value)


def test_gc_lists_then_deletes(run: Run, store: Store, workspace: Path, hold: Hold) -> None:
    kept = build(store, "pooled", workspace / "indexes").path
    gone = workspace / "indexes" / ("f" * 16) / "pooled" / "Flat"
    gone.mkdir(parents=True)
    (gone / "index.faiss").write_bytes(b"x" * 1000)
    dead = store.path / f"shard-00001.h5.{HERE}-{DEAD}-00000000.partial"
    dead.write_bytes(b"x" * 50)
    alive = store.path / f"shard-00001.h5.{HERE}-{os.getpid()}-00000000.partial"
    alive.touch()
    writer = hold(alive)
    building = kept.parent / f"Flat.{HERE}-{DEAD}-00000000.partial"
    (building / "deep").mkdir(parents=True)
    (building / "deep" / "f.partial").write_bytes(b"x" * 7)
    locks = store.path / "locks"
    locks.mkdir()
    (locks / "manifest.lock").touch()
    results = workspace / "results" / "probe-linear"
    results.mkdir(parents=True)
    (results / "a-b.1.json").write_text("{}")
    (results / "a-b.1.safetensors").write_text("kept")
    (results / "a-b.1.classes.parquet").write_text("kept")
    (results / "running-12.safetensors").write_text("kept")
    (results / "orphan.classes.parquet").write_text("four")
    (workspace / "figures" / "old" / "older").mkdir(parents=True)

    listed = json.loads(run("gc", "--json").stdout)
    expected = {
        dead: ("partial", 50),
        building: ("partial", 7),
        locks: ("locks", 0),
        gone.parent.parent: ("index", 1000),
        results / "orphan.classes.parquet": ("result", 4),
        workspace / "figures" / "old": ("folder", 0),
        workspace / "figures" / "old" / "older": ("folder", 0),
    }
    actual = {Path(entry["path"]): (entry["kind"], entry["bytes"]) for entry in listed["garbage"]}
    assert actual == expected
    assert listed["deleted"] == []
    assert listed["bytes"] == 1061
    assert all(path.exists() for path in expected)
    text = run("gc", "--delete").stdout
    assert "deleted 7 of 7, 1.1 kB" in text
    assert not any(path.exists() for path in expected)
    assert alive.exists()
    assert kept.exists()
    assert len(list(results.iterdir())) == 4
    alive.unlink()
    writer.communicate()
    assert run("gc").stdout == "nothing to delete.\n"
    shutil.rmtree(results)  # an invalid results folder
    assert run("verify").exit_code == 0


def test_gc_and_the_files_of_other_hosts(
    run: Run, store: Store, workspace: Path, hold: Hold
) -> None:
    unfinish(store, 1)
    shard = store.path / "shard-00001.h5.node7-123-00000000.partial"
    shard.touch()
    manifest = store.path / "manifest.json.node7-123-00000000.partial"
    manifest.touch()
    here = Workspace(workspace)

    def deletable(**more: object) -> set[Path]:
        return {g.path for g in find_garbage(here, **more) if g.deletable}  # type: ignore[arg-type]

    assert deletable() == set()  # the writer may be alive
    assert {g.path for g in find_garbage(here)} == {shard, manifest}
    other = hold(store.path / "locks" / "shard-00001.h5.lock")
    assert deletable() == set()
    other.communicate()
    assert deletable() == {shard}  # its lock is free, so it has no writer
    assert deletable(hosts=["node7"]) == {shard, manifest}


def test_gc_of_unfinished_stores_only_when_named(
    run: Run, store: Store, workspace: Path, hold: Hold
) -> None:
    unfinish(store, 1)
    assert run("gc").stdout == "nothing to delete.\n"
    name = store.spec.short
    other = hold(store.path / "locks" / "shard-00001.h5.lock")
    busy = json.loads(run("gc", "--unfinished", name, "--delete", "--json").stdout)
    assert busy["deleted"] == []
    assert store.path.exists()
    other.communicate()
    assert run("gc", "--unfinished", "0" * 16).stdout == "nothing to delete.\n"
    run("gc", "--unfinished", name[:6], "--delete")
    assert not store.path.exists()
    assert not list((workspace / "features").iterdir())


def test_gc_never_names_a_complete_store(run: Run, store: Store) -> None:
    run("gc", "--unfinished", store.spec.short, "--delete")
    assert np.isfinite(store.read("pooled")).all()


def test_folder_in_use_again_is_not_deleted(workspace: Path, store: Store) -> None:
    folder = workspace / "figures" / "x"
    folder.mkdir(parents=True)
    actual = find_garbage(Workspace(workspace))
    (folder / "new.png").touch()
    assert delete(actual) == []
    assert (folder / "new.png").exists()


# -- locks and partial files -------------------------------------------------------------------


def test_lock_files_left_behind_are_not_held(tmp_path: Path, hold: Hold) -> None:
    lock = tmp_path / "locks" / "x.lock"
    assert not is_held(lock)
    other = hold(lock)
    assert is_held(lock)
    other.kill()
    other.communicate()
    assert not is_held(lock)
    assert lock.exists()


def test_owner_of_a_partial_file(tmp_path: Path) -> None:
    current = owner(partial_path(tmp_path / "shard-00001.h5"))
    assert current is not None
    assert current.name == "shard-00001.h5"
    assert current.is_here
    far = owner(tmp_path / "index@nprobe=4.node-17-4242-0123abcd.partial")
    assert far is not None
    assert (far.name, far.host) == ("index@nprobe=4", "node-17")
    assert not far.is_here
    assert owner(tmp_path / "something.partial") is None


@pytest.mark.parametrize("folder", [False, True])
def test_partial_file_is_abandoned_when_writer_ends(tmp_path: Path, folder: bool) -> None:
    with locked_partial(tmp_path / "index", folder=folder) as partial:
        assert not is_abandoned(partial)
        remove_stale(tmp_path, "index")
        assert partial.exists()
        partial.rename(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    left = partial_path(tmp_path / "index")
    left.mkdir() if folder else left.touch()
    assert is_abandoned(left)
    remove_stale(tmp_path, "index")
    assert not left.exists()


def test_writer_of_other_pid_namespace_is_alive(
    run: Run, store: Store, hold: Hold, workspace: Path
) -> None:
    """Two containers with one host name: the process id of the name means nothing here."""
    unfinish(store, 1)
    partial = store.path / f"shard-00001.h5.{HERE}-{DEAD}-00000000.partial"
    writer = hold(partial)
    remove_stale(store.path, "shard-00001.h5")
    assert json.loads(run("gc", "--delete", "--json").stdout)["garbage"] == []
    assert find_garbage(Workspace(workspace), hosts=[HERE]) == []
    assert partial.exists()
    writer.kill()
    writer.communicate()
    assert json.loads(run("gc", "--delete", "--json").stdout)["deleted"] == [str(partial)]
