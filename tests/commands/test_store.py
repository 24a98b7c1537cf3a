"""`pa status`, `verify --repair`, `plan` and `gc` on a workspace of known stores."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash
from click.testing import CliRunner, Result

from pa.cli import cli
from pa.commands.status import status_text
from pa.config import load as load_config
from pa.data import datasets
from pa.data.crops import Crops
from pa.data.files import (
    is_abandoned,
    is_held,
    locked_partial,
    owner,
    partial_path,
    remove_stale,
    write_parquet,
)
from pa.data.store.checksums import with_checksum
from pa.data.store.find import StoreSelector, find
from pa.data.store.reader import IMAGES, RUNS, Store
from pa.data.store.throughput import Throughput, current_throughput, run_speed
from pa.data.views import VIEWS
from pa.errors import (
    FingerprintError,
    MissingError,
    NewerFormatError,
    StorageError,
    VerificationError,
)
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import StoreReference
from pa.extract.plan import ExtractPlan, StorePlan
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from pa.index.build import build, open_or_build
from pa.maintenance.gc import delete, find_garbage
from pa.maintenance.repair import repair
from pa.maintenance.status import status
from pa.maintenance.verify import verify, verify_stores
from pa.workspace import Workspace
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour
from tests.support.results import linear_result

Run = Callable[..., Result]
SMALL = ExtractOptions(representations=("pooled", "patch"), shard_rows=3, batch_size=4)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with 12 photographs, one of them torn; `features` of their store of 4 shards."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(12):
        noise_image(number).save(root / f"{number:02d}.png")
    (root / "05.png").write_bytes(b"not a picture")
    return tmp_path / "ws"


def encode(workspace: Path, **changes: object) -> Store:
    """Extract the photographs into the workspace."""
    options = replace(SMALL, **changes)  # type: ignore[arg-type]
    images = datasets.load("photos", "folder", workspace.parent / "photos")
    outcome = extract([MeanColour()], images, VIEWS["image"], workspace / "features", options)
    return outcome.reports[0].store


@pytest.fixture
def store(workspace: Path) -> Store:
    return encode(workspace)


@pytest.fixture
def run(workspace: Path) -> Run:
    def call(*words: object) -> Result:
        result = CliRunner().invoke(cli, ["-w", str(workspace), *map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def unfinish(store: Store, *shards: int) -> None:
    """Take shards and the manifest away."""
    (store.path / "manifest.json").unlink()
    for index in shards:
        store.shard_path(store.plan[index]).unlink()


def flip(path: Path, offset: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Callable[[Path], subprocess.Popen[str]]:
    """Hold the lock of a file in another process until its stdin closes."""

    def start(path: Path) -> subprocess.Popen[str]:
        path.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-c", HOLD, str(path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    return start


Hold = Callable[[Path], "subprocess.Popen[str]"]


# -- status -----------------------------------------------------------------------------------


def test_status_of_a_complete_store(run: Run, store: Store) -> None:
    output = json.loads(run("status", "--json").stdout)["stores"]
    assert len(output) == 1
    expected = {
        "rows": 12,
        "rows_done": 12,
        "shards": 4,
        "shards_done": 4,
        "shards_in_work": 0,
        "shards_missing": 0,
        "complete": True,
        "bad_images": 1,
        "seconds_left": None,
        "expected_end": None,
        "bytes": sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file()),
    }
    assert {name: output[0][name] for name in expected} == expected
    wall = store.runs()[0]["seconds"]["wall"]
    assert output[0]["rows_per_second"] == pytest.approx(12 / wall)
    assert output[0]["rows_per_second_from"].startswith("last run, one process on ")
    assert "complete" in run("status").stdout


def test_status_of_work_in_progress(run: Run, store: Store, hold: Hold) -> None:
    unfinish(store, 3)
    now = time.time()
    for index, ago in enumerate((30, 20, 10)):
        os.utime(store.shard_path(store.plan[index]), (now - ago, now - ago))
    other = hold(store.path / "locks" / "shard-00003.h5.lock")
    output = json.loads(run("status", "--json").stdout)["stores"][0]
    assert (output["shards_done"], output["shards_in_work"], output["shards_missing"]) == (3, 1, 0)
    assert output["bad_images"] == 1
    assert output["rows_per_second"] == pytest.approx(6 / 20)  # two shards of 3 rows in 20 s
    assert output["seconds_left"] == pytest.approx(3 / 0.3)
    assert output["expected_end"] == pytest.approx(now + 10, abs=30)
    text = run("status").stdout
    assert "3/4 shards, 1 in work" in text
    assert "in 10.0 s" in text
    other.communicate()
    output = json.loads(run("status", "--json").stdout)["stores"][0]
    assert (output["shards_in_work"], output["shards_missing"]) == (0, 1)
    assert output["seconds_left"] is None
    assert "no active writer" in run("status").stdout


def test_status_counts_bad_images_of_what_is_done(run: Run, store: Store) -> None:
    unfinish(store, 1)  # rows 3 to 5: the torn one
    assert json.loads(run("status", "--json").stdout)["stores"][0]["bad_images"] == 0


def test_status_reports_unreadable_stores(run: Run, store: Store) -> None:
    (store.path / "spec.json").write_text("{")
    outcome = run("status")
    assert outcome.exit_code == 0
    assert "spec.json is damaged" in outcome.stdout
    assert "problem" in json.loads(run("status", "--json").stdout)["stores"][0]


def test_watch_ends_when_all_is_complete(run: Run, store: Store) -> None:
    lines = run("status", "--watch").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("12/12 rows, complete, 1 bad images")
    watched = run("status", "--watch", "0.5", "--json").stdout
    assert json.loads(watched)["stores"][0]["complete"] is True


def test_watch_looks_again(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch, workspace: Path
) -> None:
    unfinish(store, 2)
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            encode(workspace)

    monkeypatch.setattr("pa.commands.console.time.sleep", sleep)
    lines = run("status", "--watch", "3").stdout.splitlines()
    assert naps[:2] == [3.0, 3.0]
    assert ["3/4 shards" in line for line in lines] == [True, True, False]


@pytest.mark.parametrize("seconds", ["nan", "inf", "0"])
def test_watch_takes_seconds_that_can_be_waited(run: Run, seconds: str) -> None:
    refused = run("status", "--watch", seconds)
    assert refused.exit_code == 2
    assert seconds in refused.stderr


def test_watch_in_a_terminal_draws_in_place(
    store: Store,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pa.commands import console

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    actual = status(Workspace(workspace))
    seen = iter([0, 1, 2])
    console.watch(
        lambda: next(seen),
        seconds=0.01,
        live=lambda n: f"{n} {status_text(actual)}",
        line=str,
        until=lambda n: n == 2,
    )
    shown = capsys.readouterr().out
    assert "photos/all/image" in shown
    assert next(seen, None) is None


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(10, 5), (20, 5), (30, 5)], 0.5),
        ([(0, 5), (1, 5), (1000, 5), (1001, 7), (1002, 7)], 7.0),  # since the pause
        ([(30, 5), (10, 100), (20, 5)], 0.5),  # in the order of time
        ([(10, 5), (20, 5)], None),
        ([(10, 5), (10, 5), (10, 5)], None),  # a clock that stands
        ([(10, 5), (20, 5), (2000, 5)], None),  # of the future: the clock went back
        ([], None),
    ],
)
def test_throughput_of_active_store(times: list[tuple[float, int]], expected: float | None) -> None:
    actual = current_throughput(times, now=1500)
    assert (actual and actual.rows_per_second) == expected


def test_torn_and_odd_lines_of_the_log(store: Store) -> None:
    log = store.path / "runs.jsonl"
    good = log.read_text()
    log.write_text(good + '{"rows": 3\n' + "[1]\n" + '{"rows": 0, "seconds": {"wall": 1}}')
    assert [run_speed(run) is None for run in store.runs()] == [False, True]
    log.unlink()
    assert store.runs() == []


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


# -- verify and repair ------------------------------------------------------------------------


def test_repair_of_intact_store_removes_nothing(run: Run, store: Store, workspace: Path) -> None:
    build(store, "pooled", workspace / "indexes")
    before = contents(store.path)
    repaired = run("verify", "--repair")
    assert repaired.exit_code == 0
    assert "nothing was removed" in repaired.stdout
    assert contents(store.path) == before


def array_place(path: Path, name: str = "pooled") -> int:
    import h5py

    with h5py.File(path) as file:
        return int(file[name].id.get_offset())


@pytest.mark.parametrize(
    ("file", "removed"),
    [
        ("shard-00001.h5", {"manifest.json", "shard-00001.h5"}),
        ("manifest.json", {"manifest.json"}),
        ("rows.parquet", {"manifest.json", "spec.json", "rows.parquet"}),
        ("spec.json", {"manifest.json", "spec.json", "rows.parquet"}),
    ],
)
def test_repair_removes_what_is_bad_and_the_same_command_makes_it_again(
    run: Run, store: Store, workspace: Path, file: str, removed: set[str]
) -> None:
    before = contents(store.path)
    path = store.path / file
    flip(path, array_place(path) if path.suffix == ".h5" else path.stat().st_size // 2)
    outcome = run("verify")
    assert outcome.exit_code == 5
    assert "pa verify --repair" in outcome.stdout
    assert contents(store.path).keys() == before.keys()
    repaired = run("verify", "--repair", "--json")
    assert repaired.exit_code == 6
    output = json.loads(repaired.stdout)["removed"]
    assert {Path(entry["path"]).name for entry in output} == removed
    assert contents(store.path).keys() == before.keys() - removed
    command = output[0]["command"]
    expected = "pa extract --encoder mean-colour --dataset photos --split all --view image"
    assert command.startswith(expected)
    again = encode(workspace)
    assert again.path == store.path
    after = contents(store.path)
    for log in (RUNS, IMAGES):
        del before[log], after[log]
    assert after == before
    assert run("verify").exit_code == 0


def test_repair_of_a_missing_shard_takes_the_manifest(run: Run, store: Store) -> None:
    store.shard_path(store.plan[0]).unlink()
    assert run("verify").exit_code == 5
    assert run("verify", "--repair").exit_code == 6
    assert not (store.path / "manifest.json").exists()
    assert len(store.missing()) == 1


def test_repair_leaves_an_unfinished_store_alone(run: Run, store: Store) -> None:
    unfinish(store, 1)
    before = contents(store.path)
    repaired = run("verify", "--repair")
    assert repaired.exit_code == 6  # not complete
    assert "nothing was removed" in repaired.stdout
    assert contents(store.path) == before


def test_missing_spec_is_reported_and_shards_are_kept(
    run: Run, store: Store, workspace: Path
) -> None:
    build(store, "pooled", workspace / "indexes")
    before = contents(store.path)
    (store.path / "spec.json").unlink()
    left = contents(store.path)
    outcome = run("verify")
    assert outcome.exit_code == 5
    assert str(store.path) in outcome.stdout
    assert "pa extract --encoder mean-colour --dataset photos" in outcome.stdout
    assert run("verify", "--store", store.fingerprint[:8]).exit_code == 5
    status = run("status")
    assert "spec.json" in status.stdout
    assert "pa extract" in status.stdout
    repaired = run("verify", "--repair")
    assert repaired.exit_code == 6
    assert run("gc", "--delete").exit_code == 0
    assert contents(store.path) == left
    assert list((workspace / "indexes").glob("*/*/*"))
    encode(workspace)
    after = contents(store.path)
    assert {name: after[name] for name in left if name not in (RUNS, IMAGES)} == {
        name: left[name] for name in left if name not in (RUNS, IMAGES)
    }
    assert after["spec.json"] == before["spec.json"]
    assert run("verify").exit_code == 0


def test_shards_alone_are_an_unfinished_store(run: Run, store: Store) -> None:
    unfinish(store, 1)
    (store.path / "spec.json").unlink()
    assert run("verify").exit_code == 6


def test_repair_of_manifest_with_other_bad_images(run: Run, store: Store) -> None:
    path = store.path / "manifest.json"
    path.write_text(path.read_text().replace("05.png", "06.png"))
    outcome = run("verify", "--quick")
    assert outcome.exit_code == 5
    assert "its checksum does not match" in outcome.stdout
    run("verify", "--repair")
    assert len(store.missing()) == 0


@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "index.json"])
def test_repair_of_an_index(run: Run, store: Store, workspace: Path, name: str) -> None:
    directory = build(store, "pooled", workspace / "indexes").path
    good = build(store, "pooled", workspace / "indexes", "Flat").path
    if name == "index.json":
        path = directory / name
        path.write_text(path.read_text().replace('"n_bad": 1', '"n_bad": 2'))
    else:
        flip(directory / name, (directory / name).stat().st_size - 3)
    assert run("verify").exit_code == 5
    repaired = run("verify", "--repair")
    assert repaired.exit_code == 6
    assert not directory.exists()
    assert good.exists()
    result = store.spec.short[:8]
    assert (
        f"pa index build --store {result} --representation pooled --index SQfp16" in repaired.stdout
    )
    assert run(*repaired.stdout.splitlines()[-1].split()[1:]).exit_code == 0
    assert run("verify").exit_code == 0


def test_index_without_json_is_an_issue(run: Run, store: Store, workspace: Path) -> None:
    directory = build(store, "pooled", workspace / "indexes").path
    (directory / "index.json").unlink()
    assert run("verify", "--quick").exit_code == 5


def test_swapped_index_is_an_issue(run: Run, store: Store, workspace: Path) -> None:
    directory = build(store, "pooled", workspace / "indexes").path
    directory.rename(directory.with_name("Flat"))
    outcome = run("verify")
    assert outcome.exit_code == 5
    assert "is another index" in outcome.stdout


def make_result(workspace: Path, store: Store) -> Path:
    """Write a result with a table and a head, in the order of every command."""
    result = linear_result(StoreReference.of(store), accuracy=0.125)
    path = result.path(workspace / "results")
    write_parquet(path.with_suffix(".curves.parquet"), pl.DataFrame({"epoch": [1, 2]}))
    path.with_suffix(".safetensors").write_bytes(b"a head of 21 bytes...")
    path.with_suffix(".training.state").write_bytes(b"of a run at work")
    return write_result(workspace / "results", result)


def test_good_results(run: Run, store: Store, workspace: Path) -> None:
    path = make_result(workspace, store)
    fields = json.loads(path.read_text())
    head = path.with_suffix(".safetensors")
    recorded = fields["files"][head.name]
    assert recorded == {"bytes": 21, "xxh3": xxhash.xxh3_128_hexdigest(head.read_bytes())}
    assert {*fields["files"]} == {f"{path.stem}.curves.parquet", head.name}
    outcome = run("verify")
    assert outcome.exit_code == 0
    assert "results: 1 good, 0 damaged" in outcome.stdout
    # A deleted store does not damage its results.
    shutil.rmtree(store.path)
    assert json.loads(run("verify", "--json").stdout)["results"] == [
        {"result": str(path), "problem": None}
    ]


def test_repair_removes_outputs_of_damaged_shard(run: Run, store: Store, workspace: Path) -> None:
    """Index, result and figure of the store; not those of another one."""
    result = make_result(workspace, store)
    index = build(store, "pooled", workspace / "indexes").path
    figures = workspace / "figures" / "search"
    figures.mkdir(parents=True)
    about = {"stores": [{"fingerprint": store.fingerprint}], "command": "pa figure search"}
    for name, fields in (("of-it", about), ("of-another", {**about, "stores": []})):
        (figures / f"{name}.json").write_text(json.dumps(fields))
        (figures / f"{name}.png").write_bytes(b"picture")
    path = store.shard_path(store.plan[1])
    data = bytearray(path.read_bytes())
    data[store.manifest.shards[path.name].offsets["pooled"]] ^= 1
    path.write_bytes(data)
    assert run("verify").exit_code == 5
    assert result.exists()
    output = json.loads(run("verify", "--repair", "--json").stdout)["removed"]
    gone = {entry["path"]: entry["command"] for entry in output}
    for file in (path, index, result, result.with_suffix(".safetensors"), figures / "of-it.png"):
        assert not file.exists()
        assert gone[str(file)].startswith("pa ")
    assert (figures / "of-another.png").exists()
    assert gone[str(figures / "of-it.json")] == "pa figure search"


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/secret.png", "a/../../secret.png"])
def test_path_outside_root_is_refused(store: Store, path: str) -> None:
    """Of a table that was made to look whole: with every checksum."""
    rows = store.rows.with_columns(pl.lit(path).alias("path"))
    rows.write_parquet(store.path / "rows.parquet")
    manifest = store.path / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["rows"] = xxhash.xxh3_128_hexdigest((store.path / "rows.parquet").read_bytes())
    manifest.write_text(json.dumps(with_checksum(fields)))
    opened = Store.open(store.path)
    with pytest.raises(VerificationError, match="leaves the root"):
        _ = opened.rows
    with pytest.raises(VerificationError, match="leaves the root"):
        Crops(opened).region(0)


def test_undecodable_workspace_name_is_supported(run: Run, store: Store, workspace: Path) -> None:
    """A path that is not UTF-8 works, also after a repair."""
    folder = workspace.parent / os.fsdecode(b"caf\xe9")
    workspace.rename(folder)
    config = load_config(folder)
    (actual,) = find(config.features)
    built = [build(actual, "pooled", config.indexes, name) for name in ("SQfp16", "IVF2,Flat")]
    result = make_result(folder, actual)
    verification = verify(Workspace(folder))
    checks = [*verification.indexes, *verification.results]
    assert [check.issue for check in checks] == [None] * 3
    assert repair(Workspace(folder), verification) == []
    for index in built:
        opened = open_or_build(actual, "pooled", config.indexes, index.info.factory)
        assert not opened.built
    assert result.exists()


@pytest.mark.parametrize(
    ("suffix", "problem"),
    [
        (".json", "its checksum does not match"),
        (".safetensors", "its bytes have changed"),
        (".curves.parquet", "its bytes have changed"),
    ],
)
def test_repair_of_a_result(
    run: Run, store: Store, workspace: Path, suffix: str, problem: str
) -> None:
    path = make_result(workspace, store)
    names = {file.name for file in path.parent.iterdir()}
    bad = path.with_suffix(suffix)
    data = bad.read_bytes()
    flip(bad, data.index(b"0.125") + 2 if suffix == ".json" else len(data) // 2)
    outcome = run("verify")
    assert outcome.exit_code == 5
    assert "results: 0 good, 1 damaged" in outcome.stdout
    assert problem in outcome.stdout
    repaired = run("verify", "--repair", "--json")
    assert repaired.exit_code == 6
    removed = json.loads(repaired.stdout)["removed"]
    assert {entry["command"] for entry in removed} == {
        "pa probe linear --encoder mean-colour --dataset photos"
    }
    state = f"{path.stem}.training.state"
    assert {Path(entry["path"]).name for entry in removed} == names - {state}
    assert {file.name for file in path.parent.iterdir()} == {state}
    assert run("verify").exit_code == 0


def test_results_that_are_incomplete_or_misplaced(run: Run, store: Store, workspace: Path) -> None:
    path = make_result(workspace, store)
    head = path.with_suffix(".safetensors")

    def problem(*words: str) -> str:
        (output,) = json.loads(run("verify", "--json", *words).stdout)["results"]
        return str(output["problem"])

    head.write_bytes(head.read_bytes()[:-1])
    assert "it has 20 bytes, 21 were written" in problem("--quick")
    head.unlink()
    assert f"{head.name}: it is missing" in problem("--quick")
    path.rename(path.with_name("a-0123456789ab.json"))
    assert "whose file has another name" in problem()
    path.with_name("a-0123456789ab.json").write_text('{"format": 1, ')
    assert "is not readable JSON" in problem()


def test_repair_reads_everything(run: Run, store: Store) -> None:
    with pytest.raises(ValueError, match="leave out --quick"):
        run("verify", "--quick", "--repair")


def test_damaged_spec_does_not_hide_other_stores(run: Run, store: Store, workspace: Path) -> None:
    other = encode(workspace, limit=5)
    (other.path / "spec.json").write_text("[]")
    output = json.loads(run("verify", "--json").stdout)["stores"]
    assert sorted(len(entry["problems"]) for entry in output) == [0, 1]
    only = json.loads(run("verify", "--store", store.fingerprint[:10], "--json").stdout)["stores"]
    assert [entry["store"] for entry in only] == [store.title]


def test_files_of_newer_version_are_reported_and_kept(
    run: Run, store: Store, workspace: Path
) -> None:
    other = encode(workspace, limit=5)
    result = make_result(workspace, store)
    index = build(store, "pooled", workspace / "indexes").path
    (other.path / "shard-00000.h5").unlink()  # a link to that of the other store
    (other.path / "shard-00000.h5").write_bytes(b"of a form this version does not know")
    for file in (other.path / "spec.json", result, index / "index.json"):
        fields = json.loads(file.read_text())
        file.write_text(json.dumps({**fields, "format": fields["format"] + 1}))
    places = [other.path, index, result]
    before = [contents(folder) for folder in (other.path, index, result.parent)]
    outcome = run("verify")
    assert outcome.exit_code == 4
    for path in places:
        assert f"\n  {path}\n" in f"{outcome.stdout}\n"
    assert "--repair" not in outcome.stdout
    flip(store.path / "manifest.json", 40)
    assert run("verify").exit_code == 5
    repaired = run("verify", "--repair", "--json")
    assert repaired.exit_code == 4
    fields = json.loads(repaired.stdout)
    assert fields["newer"] == [str(path) for path in places]
    assert [Path(entry["path"]).name for entry in fields["removed"]] == ["manifest.json"]
    assert [contents(folder) for folder in (other.path, index, result.parent)] == before


def test_verify_compares_every_image_when_asked(run: Run, store: Store, workspace: Path) -> None:
    good = run("verify", "--images", "--json")
    assert good.exit_code == 0
    (entry,) = json.loads(good.stdout)["images"]
    assert (entry["images"], entry["changed"]) == (12, [])
    photos = workspace.parent / "photos"
    (photos / "07.png").write_bytes((photos / "06.png").read_bytes())
    (photos / "09.png").unlink()
    assert run("verify").exit_code == 0
    before = contents(store.path)
    for words in (("--images",), ("--images", "--repair")):
        outcome = run("verify", *words)
        assert outcome.exit_code == 5
        for word in ("07.png", "09.png", f"{store.command} --replace"):
            assert word in outcome.stdout
    outcome = run("verify", "--images", "--json")
    (entry,) = json.loads(outcome.stdout)["images"]
    assert [image["path"] for image in entry["changed"]] == ["07.png", "09.png"]
    assert entry["changed"][1]["found"] is None
    assert contents(store.path) == before


def test_shard_and_manifest_of_newer_version_are_kept(run: Run, store: Store) -> None:
    import h5py

    for name in ("shard-00001.h5", "manifest.json"):
        file = store.path / name
        whole = file.read_bytes()
        if file.suffix == ".h5":
            with h5py.File(file, "r+") as opened:
                opened.attrs["format"] = 99
            (store.path / "manifest.json").rename(store.path.parent / "kept")
        else:
            file.write_text(file.read_text().replace('"format": 2', '"format": 99', 1))
        before = contents(store.path)
        repaired = run("verify", "--repair")
        assert repaired.exit_code == 4, repaired.stdout
        assert "newer version of pa" in repaired.stdout
        assert contents(store.path) == before
        file.write_bytes(whole)
        if file.suffix == ".h5":
            (store.path.parent / "kept").rename(store.path / "manifest.json")
    assert run("verify").exit_code == 0


def test_index_of_newer_version_is_not_replaced(store: Store, workspace: Path) -> None:
    indexes = workspace / "indexes"
    info = build(store, "pooled", indexes).path / "index.json"
    info.write_text(info.read_text().replace('"format": 2', '"format": 9'))
    with pytest.raises(NewerFormatError, match="index format 9, this version reads 2"):
        open_or_build(store, "pooled", indexes)
    assert '"format": 9' in info.read_text()


# -- plan -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from safetensors.torch import save_file

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


def test_plan_says_what_extract_then_does(run: Run, workspace: Path, weights: Path) -> None:
    words = ["--encoder", "timm/test_vit", "--checkpoint", weights, "--dataset", "folder"]
    words += ["--root", workspace.parent / "photos", "--view", "image,grid"]
    words += ["--features", "pooled,patch", "--shard-rows", "100", "--device", "cpu"]
    plan = json.loads(run("plan", "extract", *words, "--json").stdout)
    assert not (workspace / "features").exists()
    assert plan["seconds"] is None
    assert [entry["rows_to_do"] for entry in plan["stores"]] == [12, 588]
    text = run("plan", "extract", *words).stdout
    assert "unknown" in text
    assert "enough" in text

    assert run("extract", *words).exit_code == 6  # the torn one
    for entry in plan["stores"]:
        files = [path for path in Path(entry["path"]).iterdir() if path.is_file()]
        assert len(files) == entry["files"]
        written = sum(path.stat().st_size for path in files if path.name not in (RUNS, IMAGES))
        assert 0.9 * written <= entry["bytes"] <= 1.25 * written
    done = json.loads(run("plan", "extract", *words, "--json").stdout)
    assert [(e["rows_to_do"], e["files"], e["bytes"]) for e in done["stores"]] == [(0, 0, 0)] * 2
    assert done["seconds"] == 0

    # More images at the recorded throughput, with the shards that another store has.
    fewer = json.loads(run("plan", "extract", *words, "--limit", "4", "--json").stdout)
    grid = fewer["stores"][1]
    assert (grid["rows"], grid["rows_adopted"], grid["rows_to_do"]) == (196, 196, 0)
    noise_image(99).save(workspace.parent / "photos" / "99.png")
    more = json.loads(run("plan", "extract", *words, "--replace", "--json").stdout)["stores"][1]
    assert (more["rows"], more["rows_adopted"], more["rows_to_do"]) == (637, 588, 49)
    log = json.loads((Path(grid["path"]).parent / _only_store(grid) / "runs.jsonl").read_text())
    rows_per_second = log["rows"] / log["seconds"]["wall"]
    assert more["rows_per_second"] == pytest.approx(rows_per_second)
    assert more["seconds"] == pytest.approx(49 / rows_per_second)


def _only_store(entry: dict[str, str]) -> str:
    (existing,) = Path(entry["path"]).parent.iterdir()
    return existing.name


def test_plan_says_that_images_changed(run: Run, workspace: Path, weights: Path) -> None:
    words = ["--encoder", "timm/test_vit", "--checkpoint", weights, "--dataset", "folder"]
    words += ["--root", workspace.parent / "photos", "--view", "image", "--device", "cpu"]
    assert run("extract", *words).exit_code == 6  # the torn one
    (workspace.parent / "photos/05.png").write_bytes(b"not a PICTURE")
    (folder,) = workspace.glob("features/folder/all/image/*/*")
    before = contents(folder)
    planned = run("plan", "extract", *words)
    assert planned.exit_code == 0
    assert "1 of 12 images" in planned.stderr
    assert contents(folder) == before
    with pytest.raises(FingerprintError, match=r"05\.png"):
        run("extract", *words)


def test_plan_refuses_a_disk_that_is_too_small(
    run: Run, workspace: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--encoder", "timm/test_vit", "--checkpoint", weights, "--dataset", "folder"]
    words += ["--root", workspace.parent / "photos"]
    monkeypatch.setattr("pa.data.files.free_bytes", lambda path: 10_000)
    with pytest.raises(StorageError, match=r"has 0\.00 GB free.*pa gc"):
        run("plan", "extract", *words)


def test_plan_time_needs_every_part() -> None:
    first = StorePlan("a/b/c", "e", 10, 10, Path("p"), 0, 0, 1, 1, 0, 4, 100, Throughput(2.0, "x"))
    unknown = replace(first, throughput=None)
    assert ExtractPlan([first, first], Path(), 200).seconds == 10
    assert ExtractPlan([first, first], Path(), 200).fits
    assert ExtractPlan([first, unknown], Path(), 199).seconds is None
    assert not ExtractPlan([first, unknown], Path(), 199).fits


def test_plan_extract_takes_the_options_of_extract() -> None:
    group = cli.commands["plan"]
    planned = {option.name for option in group.commands["extract"].params}  # type: ignore[attr-defined]
    assert planned == {option.name for option in cli.commands["extract"].params}


# -- gc ---------------------------------------------------------------------------------------

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


def test_store_query_reaches_a_store_with_a_damaged_spec(store: Store, workspace: Path) -> None:
    (store.path / "spec.json").write_text("{}")
    here = Workspace(workspace)
    for selector in (
        StoreSelector(encoder="mean-colour"),
        StoreSelector(fingerprint=store.fingerprint),
    ):
        assert [check.path for check in verify_stores(here, selector)] == [store.path]
    with pytest.raises(MissingError, match="Damaged"):
        list(verify_stores(here, StoreSelector(encoder="other")))


def test_repair_removes_the_index_of_a_store_with_a_missing_shard(
    run: Run, store: Store, workspace: Path
) -> None:
    """The shard is encoded again, and its features may differ in the last bits."""
    index = build(store, "pooled", workspace / "indexes").path
    store.shard_path(store.plan[1]).unlink()
    repaired = run("verify", "--repair", "--json")
    assert repaired.exit_code == 6
    removed = {entry["path"] for entry in json.loads(repaired.stdout)["removed"]}
    assert removed == {str(store.path / "manifest.json"), str(index)}
    assert not index.exists()
