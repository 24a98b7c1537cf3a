"""`pa plan extract`: what is planned is what `pa extract` does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pa.cli import cli
from pa.data.store.reader import IMAGES, RUNS
from pa.data.store.throughput import Throughput
from pa.errors import (
    FingerprintError,
    StorageError,
)
from pa.extract.plan import ExtractPlan, StorePlan
from tests.support.images import noise_image
from tests.support.photos import (
    Run,
    contents,
    run,
    store,
    workspace,
)

__all__ = ["run", "store", "workspace"]


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
