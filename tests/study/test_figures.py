"""The figures of the study: which can be drawn from which steps, and when they are drawn again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pa.cli import cli
from pa.data.files import write_json
from pa.report.figures import figures_in
from pa.study.figures import figure_steps
from pa.study.plan import StudyOptions, plan_study
from pa.study.run import StepError, StepResult, run_study, submissions
from pa.study.steps import Step, study_steps
from pa.workspace import Workspace
from tests.support.checkpoints import official
from tests.support.commands import parse_words
from tests.support.images import noise_image

ENCODERS = ("mocov3", "deit", "mae")
PAIR = ("pascal-object", "pascal-part")


def drawn(
    *datasets: str, encoders: tuple[str, ...] = ENCODERS, **args: str
) -> tuple[list[Step], list[tuple[str, str]]]:
    protocol = args.get("protocol", "paper")
    return figure_steps(study_steps(encoders, datasets, protocol), protocol, None)


def flag(step: Step, name: str) -> str:
    return step.words[step.words.index(name) + 1]


def test_paper_figures_show_available_encoders() -> None:
    actual = {step.name: step for step in drawn("imagenet", *PAIR)[0]}
    assert list(actual) == ["figure 2", "figure 4", "figure 7", "figure 8", "figure 6 pascal paper"]
    shown = {name: flag(step, "--encoder") for name, step in actual.items()}
    assert shown == {
        "figure 2": "deit,mocov3",  # the paper's third encoder is missing
        "figure 4": "mocov3",  # the one with a projector
        "figure 7": "deit,mocov3,mae",
        "figure 8": "deit,mocov3,mae",
        "figure 6 pascal paper": "deit,mocov3,mae",
    }
    assert flag(actual["figure 7"], "--example") != flag(actual["figure 8"], "--example")
    assert flag(actual["figure 6 pascal paper"], "--labels") == ",".join(PAIR)
    for step in actual.values():
        parse_words(step.words)


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_figure_follows_its_sources(protocol: str) -> None:
    steps = study_steps(["deit", "dino"], protocol=protocol)
    names = {step.name for step in steps}
    result = figure_steps(steps, protocol, None)[0]
    assert {step.words[1] for step in result} == {
        "neighbours",
        "projected",
        "segmentation",
        "shares",
    }
    for step in result:
        assert set(step.after) <= names
        before = [item for item in steps if item.name in step.after]
        assert {item.encoder for item in before} == set(flag(step, "--encoder").split(","))
        # The stores of the scores are sources too: if they change, the figure is drawn again.
        assert {name for item in before for name in item.after} <= set(step.after)


def test_figures_that_cannot_be_drawn_say_why() -> None:
    output = dict(drawn("cub", "pascal-part", encoders=("beit",))[1])
    assert "windows of dataset imagenet" in output["figures 2, 4, 7, 8"]
    assert output["figure 6 of pascal"].endswith("none of pascal-object")
    assert "pa evaluate retrieval --layers all" in output["figure depth of cub"]
    assert "pa probe linear --sweep" in output["figure sweep of cub"]
    output = dict(drawn("imagenet", encoders=("beit",))[1])
    assert "DeiT, MoCo v3 and CAE; none is here" in output["figure 2"]
    assert "with a projector" in output["figure 4"]


# -- a study with figures -------------------------------------------------------------------------

# No number is of ImageNet's windows alone, so that there is nothing to report.
REQUEST = StudyOptions(datasets=("imagenet",))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """4 photographs, and a checkpoint of a tiny DeiT."""
    folder = tmp_path / "imagenet" / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number in range(4):
        noise_image(number, (260, 256)).save(folder / f"{number}.JPEG")
    torch.save(official("deit"), tmp_path / "deit.pth")
    (tmp_path / "pa.toml").write_text(
        '[datasets.imagenet]\nroot = "imagenet"\n[encoders.deit]\ncheckpoint = "deit.pth"\nnum_heads = 1\n'
    )
    return tmp_path


def run(workspace: Path, *, keep_going: bool = False) -> Iterator[StepResult]:
    opened = Workspace(workspace)
    return run_study(opened, plan_study(opened, REQUEST), keep_going=keep_going)


def to_do(workspace: Path, request: StudyOptions = REQUEST) -> set[str]:
    return {
        step.name for step in plan_study(Workspace(workspace), request).remaining if step.is_figure
    }


def test_figures_are_drawn_once(workspace: Path) -> None:
    names = {"figure 2", "figure 7", "figure 8"}
    assert to_do(workspace) == names
    states = {item.step.name: item.state for item in run(workspace, keep_going=True)}
    assert {states[name] for name in names} == {"ran"}
    shown = {item.name: item for item in figures_in(workspace / "figures")}
    assert sorted(shown) == ["figure-2", "figure-7", "figure-8"]
    assert to_do(workspace) == set()

    # A file of one is gone: it alone is drawn again. What all are drawn from is of another run, or
    # gone: so are all.
    (workspace / "figures" / "neighbours" / "figure-7.pdf").unlink()
    assert to_do(workspace) == {"figure 7"}
    (record,) = (workspace / "study").glob("index-imagenet-deit-*.json")
    fields = json.loads(record.read_text())
    write_json(record, {**fields, "fills": ["another run"]})
    assert to_do(workspace) == names
    write_json(record, fields)
    assert to_do(workspace) == {"figure 7"}
    record.unlink()
    assert to_do(workspace) == names


def test_failed_figure_stops_nothing(workspace: Path) -> None:
    (workspace / "figures").write_text("a file")
    (workspace / "results").mkdir()
    ended = []
    with pytest.raises(StepError, match="pa report"):
        for item in run(workspace):
            ended.append((item.step.name, item.state))
    assert ended[-4:] == [
        ("figure 2", "failed"),
        ("figure 7", "failed"),
        ("figure 8", "failed"),
        ("report", "failed"),
    ]


def test_figures_can_be_skipped(workspace: Path) -> None:
    assert to_do(workspace, StudyOptions(figures=False)) == set()
    done = CliRunner().invoke(
        cli, ["-w", str(workspace), "run", "paper", "--script", "--no-figures"]
    )
    assert done.exit_code == 0
    assert "pa figure" not in done.stdout


def test_job_array_defers_figures(workspace: Path) -> None:
    lines = submissions(plan_study(Workspace(workspace), REQUEST), 4)
    commands = [word for line in lines for word in shlex.split(line)]
    assert not any("figure" in word for word in commands)
