"""`pa run paper` on a small tree of birds and a small network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pa.cli import cli
from pa.errors import MissingError, StorageError, UnknownNameError, UsageError
from pa.study.plan import StudyOptions, plan_study
from pa.study.run import StepError, run_study, submissions
from pa.study.steps import Scale
from pa.workspace import Workspace
from tests.support.images import noise_image
from tests.support.segmentation_trees import index_tree

REQUEST = StudyOptions(scale=Scale(epochs=1))
Run = Callable[..., Result]


@pytest.fixture
def workspace(study_workspace: Path) -> Path:
    return study_workspace


@pytest.fixture
def run(workspace: Path) -> Run:
    def call(*words: str) -> Result:
        result = CliRunner().invoke(cli, ["-w", str(workspace), "run", "paper", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_study_runs_and_is_skipped_when_complete(workspace: Path, run: Run) -> None:
    first = run("--epochs", "1", "--json", "--keep-going")
    states = {item["name"]: item["state"] for item in json.loads(first.stdout)["steps"]}
    failed = {name for name, state in states.items() if state != "ran"}
    # The tiny network's width is not a multiple of 64: the attentive probe says what to do about it.
    assert failed <= {"probe attentive paper cub deit"}
    assert (workspace / "results" / "retrieval").is_dir()
    assert list((workspace / "study").glob("*.log"))

    opened = Workspace(workspace)
    again = plan_study(opened, REQUEST)
    assert {step.name for step in again.remaining} == failed | {"report"}
    assert plan_study(opened, StudyOptions(scale=Scale(epochs=2))).done < again.done

    # What a step wrote is gone: it runs again. Its store is another: so does all that read it.
    (result,) = (workspace / "results" / "probe-linear").glob("*.json")
    result.unlink()
    assert "probe linear paper cub deit" in {s.name for s in plan_study(opened, REQUEST).remaining}
    for manifest in workspace.glob("features/cub/all/*/*/*/manifest.json"):
        manifest.unlink()
    assert {"extract cub all parts paper deit", "retrieval paper cub deit"} <= {
        step.name for step in plan_study(opened, REQUEST).remaining
    }


def test_scaled_study_needs_separate_workspace(workspace: Path, run: Run) -> None:
    words = ["-w", str(workspace), "extract", "--encoder", "deit", "--dataset", "cub"]
    assert CliRunner().invoke(cli, [*words, "--split", "all", "--limit", "4"]).exit_code == 0
    assert run("--limit", "4", "--dry-run").exit_code == 0
    with pytest.raises(UsageError, match="of 4 images, and scores would be of that one"):
        run("--limit", "3", "--dry-run")


def test_failing_step_stops_with_its_message(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "deit.pth").write_bytes(b"no checkpoint")
    ended = []
    with pytest.raises(StepError, match="is not a checkpoint") as caught:
        for item in run_study(Workspace(workspace), plan_study(Workspace(workspace), REQUEST)):
            ended.append(item)
    assert caught.value.exit_code == 4
    assert [item.state for item in ended] == ["failed"]


def test_unconfigured_inputs_are_listed(workspace: Path, run: Run) -> None:
    outcome = run("--dry-run")
    assert outcome.exit_code == 0
    assert "skipped: encoder mae: no checkpoint. Set [encoders.mae]" in outcome.output
    assert "skipped: dataset lip: set [datasets.lip]" in outcome.output
    (workspace / "pa.toml").write_text("")
    with pytest.raises(MissingError, match="nothing of the study can be run"):
        plan_study(Workspace(workspace), REQUEST)


def test_steps_of_missing_split_are_skipped(workspace: Path) -> None:
    folder = workspace / "imagenet" / "val" / "n01440764"
    folder.mkdir(parents=True)
    noise_image(1).save(folder / "a.JPEG")
    settings = workspace / "pa.toml"
    settings.write_text(settings.read_text() + '[datasets.imagenet]\nroot = "imagenet"\n')
    actual = plan_study(Workspace(workspace), StudyOptions(datasets=("imagenet",)))
    # The windows of the gallery need no training split; the probes do, and what only they read.
    assert [step.name for step in actual.steps] == [
        "extract imagenet val grid deit",
        "index imagenet deit",
        *(f"figure {number}" for number in (2, 7, 8)),
        "report",
    ]
    assert ("dataset imagenet, split train", "the split does not exist, only val") in [
        (item.what, item.why) for item in actual.skipped
    ]


def test_steps_that_a_limit_is_too_small_for_are_skipped(workspace: Path) -> None:
    for split in ("train", "val"):
        folder = workspace / "imagenet" / split / "n01440764"
        folder.mkdir(parents=True)
        for number in range(2):
            noise_image(number).save(folder / f"{number}.JPEG")
        index_tree(workspace / "lip", split, {"a": np.zeros((9, 9)), "b": np.ones((9, 9))})
    settings = workspace / "pa.toml"
    settings.write_text(
        f'{settings.read_text()}[datasets.imagenet]\nroot = "imagenet"\n'
        f'[datasets.lip]\nroot = "lip"\n'
    )
    request = StudyOptions(datasets=("imagenet", "cub", "lip"), scale=Scale(limit=1))
    actual = plan_study(Workspace(workspace), request)
    reasons = {item.what: item.why for item in actual.skipped}
    assert "two classes" in reasons["probe linear of imagenet"]
    assert "two classes" in reasons["probe attentive of imagenet"]
    assert "nothing can be retrieved" in reasons["evaluate retrieval of cub"]
    assert "nothing to train on" in reasons["probe segmentation of lip"]
    # What only these read is not extracted; what is possible stays.
    names = [step.name for step in actual.steps]
    assert not [name for name in names if "lip" in name or "train image" in name]
    assert {"index imagenet deit", "neighbours paper cub deit"} <= set(names)
    more = plan_study(Workspace(workspace), replace(request, scale=Scale(limit=2)))
    assert {"retrieval paper cub deit", "segmentation paper lip deit"} <= {
        step.name for step in more.steps
    }


def test_remaining_steps_run_under_limit(workspace: Path) -> None:
    request = StudyOptions(scale=Scale(limit=1, epochs=1))
    ran = []
    for step in plan_study(Workspace(workspace), request).steps:
        result = CliRunner().invoke(cli, ["-w", str(workspace), *step.words])
        # The tiny network's width is not a multiple of 64, which attention heads need.
        if "attentive" not in step.words:
            assert result.exit_code == 0, (step.command, result.output, result.exception)
            ran += step.words[:2]
    assert {"neighbours", "linear", "shares", "report"} <= set(ran)


def test_plan_says_bytes_and_refuses_a_small_disk(
    workspace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = json.loads(run("--plan", "--json").stdout)
    assert planned["bytes"] == sum(p["bytes"] for p in planned["extractions"].values()) > 0
    assert set(planned["extractions"]) == {
        step["name"] for step in planned["steps"] if step["command"].startswith("pa extract")
    }
    assert "steps, 0 done" in run("--plan").stdout
    monkeypatch.setattr("pa.data.files.free_bytes", lambda _: 1000)
    with pytest.raises(StorageError, match="the study needs"):
        run("--plan")


def test_script_equals_run(workspace: Path, run: Run) -> None:
    script = run("--script").stdout
    commands = [line for line in script.splitlines() if line.startswith("pa ")]
    assert commands == [
        step.command for step in plan_study(Workspace(workspace), StudyOptions()).remaining
    ]
    assert "# Table 3, CUB-200-2011, DeiT, encoded, AP\n" in script
    assert script.count("# -- DeiT on CUB-200-2011 --\n") == 1
    assert f"\ncd {workspace}\n" in script
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--encoders", "diet"), "unknown encoder 'diet'. Did you mean deit"),
        (("--encoders", "deit,moco3"), "unknown encoder 'moco3'. Did you mean mocov3"),
        (("--datasets", "cubb"), "unknown dataset of the study 'cubb'. Did you mean cub"),
    ],
)
def test_misspelled_name_suggests_nearest(run: Run, words: tuple[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        run("--dry-run", *words)
    assert str(caught.value).startswith(message)


def test_submissions_hold_every_step_once(workspace: Path) -> None:
    study = plan_study(Workspace(workspace), StudyOptions())
    (line,) = submissions(study, 8)
    assert line.startswith("pa submit extract --encoder deit")
    assert "--tasks 8" in line
    drawn = sum(step.is_figure for step in study.remaining)
    assert drawn == 1
    # All but the array, the figures and the report.
    assert line.count("--then") == len(study.remaining) - drawn - 2


def test_modes_do_not_go_together(run: Run) -> None:
    wrong = run("--plan", "--script")
    assert wrong.exit_code == 2
    assert "--plan and --script cannot be combined" in wrong.output
