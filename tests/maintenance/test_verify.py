"""`pa verify` and `--repair`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest
import xxhash

from pa.config import load as load_config
from pa.data.crops import Crops
from pa.data.files import (
    write_parquet,
)
from pa.data.store.checksums import with_checksum
from pa.data.store.find import StoreSelector, find
from pa.data.store.reader import IMAGES, RUNS, Store
from pa.errors import (
    MissingError,
    NewerFormatError,
    VerificationError,
)
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import StoreReference
from pa.index.build import build, open_or_build
from pa.maintenance.repair import repair
from pa.maintenance.verify import verify, verify_stores
from pa.workspace import Workspace
from tests.support.photos import Run, contents, encode, flip, unfinish
from tests.support.results import linear_result


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
