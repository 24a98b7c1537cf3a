"""`pa plan` of commands on stored features, compared with what the command then does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from torch import Tensor

from pa.cli import cli
from pa.commands.plan import work
from pa.commands.plan.evaluate_retrieval import count_differences
from pa.commands.plan.work import WorkItem, WorkPlan, check_room
from pa.data import datasets
from pa.data.views import VIEWS
from pa.errors import AmbiguousError, StorageError, UsageError
from pa.extract.encoders import Features
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour

Run = Callable[..., Result]
PLANNED = {
    "index build": [],
    "index build --index IVF4,Flat@nprobe=2": [],
    "probe linear --representation pooled --epochs 3 --seeds 2": ["--test-fraction", "0.3"],
    "probe linear --representation pooled --epochs 2 --lr 0.1,0.4 --sweep --no-references": [],
    "evaluate retrieval": [],
    "evaluate retrieval --representation cls,pooled": [],
    "probe attentive --epochs 2 --attention-heads 1 --seeds 2": [],
}
FOLDERS = {"index": "indexes", "probe": "results", "evaluate": "results"}


class WithClass(MeanColour):
    """Add cls (B, 3), the mean RGB of the first quarter."""

    def representations_at(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"cls": (3,), **super().representations_at(size)}

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        actual = super().encode(pixels, want)
        return Features(cls=actual["patch"][:, 0], pooled=actual.pooled, patch=actual.patch)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 photographs of three classes, encoded as class token, mean and patches."""
    target = tmp_path_factory.mktemp("plan")
    for number in range(48):
        folder = target / "photos" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        noise_image(number).save(folder / f"{number:02d}.png")
    images = datasets.load("photos", "folder", target / "photos")
    options = ExtractOptions(
        representations=("cls", "pooled", "patch"), shard_rows=16, batch_size=8
    )
    extract([WithClass()], images, VIEWS["image"], target / "ws" / "features", options)
    return target / "ws"


@pytest.fixture
def run(workspace: Path) -> Run:
    def call(*words: object) -> Result:
        return CliRunner().invoke(cli, ["-w", str(workspace), *map(str, words)])

    return call


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("line", PLANNED)
def test_plan_equals_what_the_command_writes(line: str, run: Run, workspace: Path) -> None:
    words = [*line.split(), *PLANNED[line], "--view", "image"]
    before = files(workspace)
    planned = run("plan", *words, "--json")
    assert planned.exit_code == 0, planned.output
    assert files(workspace) == before, "a plan writes nothing"
    plan = json.loads(planned.stdout)
    assert plan["fits"]
    assert plan["seconds"] is None, "no earlier run"
    assert plan["memory"] == max(item["memory"] for item in plan["items"])
    folder = workspace / FOLDERS[words[0]]
    assert run(*words).exit_code == 0
    written = {path: size for path, size in files(folder).items() if path not in before}
    assert sum(item["files"] for item in plan["items"]) == len(written)
    assert 0.6 < plan["bytes"] / sum(written.values()) < 1.7
    repeated = json.loads(run("plan", *words, "--json").stdout)
    if words[0] == "index":  # an index records no time
        assert repeated["seconds"] is None
    else:
        low, high = recorded(written)
        assert low - 1e-6 <= repeated["seconds"] <= high + 1e-6
    for path in written:
        path.unlink()
    text = run("plan", *words).stdout
    assert "unknown" in text
    assert "enough" in text


def recorded(written: Collection[Path]) -> tuple[float, float]:
    """The seconds that results record, with the shortest and longest bootstrap per difference."""
    fields = [json.loads(path.read_text()) for path in written if path.suffix == ".json"]
    scores = [result for result in fields if not result["task"].endswith("-difference")]
    seconds = sum(sum(result["seconds"].values()) for result in scores)
    bootstraps = [result["seconds"].get("bootstrap", 0.0) for result in scores]
    n_differences = len(fields) - len(scores)
    return seconds + n_differences * min(bootstraps), seconds + n_differences * max(bootstraps)


def test_plan_scales_the_time_of_the_newest_comparable_run(run: Run, workspace: Path) -> None:
    words = ("probe", "linear", "--view", "image", "--representation", "pooled", "--no-references")
    assert run(*words, "--epochs", 2, "--lr", "0.1,0.4", "--sweep").exit_code == 0
    assert json.loads(run("plan", *words, "--json").stdout)["seconds"] is None  # only a sweep
    assert run(*words, "--epochs", 2).exit_code == 0
    plans = [
        json.loads(run("plan", *words, "--epochs", epochs, "--json").stdout)["seconds"]
        for epochs in (2, 200)
    ]
    assert plans[1] == pytest.approx(100 * plans[0])
    shutil.rmtree(workspace / "results")


def test_plan_refuses_what_its_command_refuses(run: Run) -> None:
    for words, error in (
        ("probe linear --lr 0.1,0.4", "--sweep"),
        ("evaluate retrieval --representation patch", "one vector per row"),
        ("index build --representation patch", "one vector per row"),
        ("probe linear --shots 1", "--shots"),
    ):
        refused = run("plan", *words.split(), "--view", "image")
        assert isinstance(refused.exception, UsageError), words
        assert error in str(refused.exception)


def test_count_differences() -> None:
    # cls and pooled of two stores: one pair in each store, one pair of each representation.
    scored = [(name, kind) for name in "ab" for kind in ("cls", "pooled")]
    assert count_differences(scored) == 4
    assert count_differences(scored[:1]) == 0


ITEM = WorkItem("x", 10, 2, 300, 5_000, 1.5)
PLAN = WorkPlan((ITEM, replace(ITEM, memory=7_000)), Path("p"), 600, 7_000)


def test_work_plan_adds_items_that_follow_each_other() -> None:
    assert (PLAN.bytes, PLAN.seconds, PLAN.memory) == (600, 3.0, 7_000)
    assert replace(PLAN, items=(ITEM, replace(ITEM, seconds=None))).seconds is None
    assert PLAN.to_json()["fits"]
    check_room(PLAN)
    check_room(replace(PLAN, available=None))
    with pytest.raises(StorageError, match=r"0\.00 GB free.*pa gc"):
        check_room(replace(PLAN, free=599))
    with pytest.raises(StorageError, match=r"of memory.*--pieces"):
        check_room(replace(PLAN, available=6_999))
    assert not replace(PLAN, available=6_999).to_json()["fits"]


def test_plan_that_does_not_fit_exits_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pa.data.files.free_bytes", lambda path: 10)
    refused = run("plan", "index", "build", "--view", "image")
    assert isinstance(refused.exception, StorageError)
    assert refused.exception.exit_code == 1
    assert "TOO LITTLE" in refused.stdout


def test_available_memory_reads_meminfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    12 kB\n")
    monkeypatch.setattr(work, "MEMINFO", meminfo)
    assert work.available_memory() == 12 * 1024
    monkeypatch.setattr(work, "MEMINFO", tmp_path / "none")
    assert work.available_memory() is None


def test_plans_take_every_option_of_their_commands() -> None:
    for words in ("index build", "probe linear", "probe attentive", "evaluate retrieval"):
        assert options(cli, f"plan {words}") == options(cli, words)
    segmentation = options(cli, "probe segmentation")
    assert options(cli, "plan probe segmentation") == segmentation | {"plan_views"}


def options(command: Any, words: str) -> set[str | None]:
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return {option.name for option in command.params}


def test_segmentation_plan_needs_a_dataset_or_stores(run: Run) -> None:
    assert isinstance(run("plan", "probe", "segmentation").exception, AmbiguousError)
    assert run("plan", "probe", "segmentation", "--no-such-option").exit_code == 2
