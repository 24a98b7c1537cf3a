"""The figures of the study: which can be drawn from which steps, and when they are drawn again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pa.cli import cli
from pa.config import load
from pa.data.files import write_json
from pa.progress import Silent
from pa.report.figures import figures_in
from pa.study.figures import Figures, figures
from pa.study.steps import Step, study
from pa.tasks.run import StepError, run_paper, submissions
from pa.tasks.study import StudyRequest, read_study
from tests.support.checkpoints import official
from tests.support.commands import parse_words
from tests.support.images import noise_image

ENCODERS = ("mocov3", "deit", "mae")
PAIR = ("pascal-object", "pascal-part")


def drawn(*datasets: str, encoders: tuple[str, ...] = ENCODERS, **given: str) -> Figures:
    protocol = given.get("protocol", "paper")
    return figures(study(encoders, datasets, protocol), protocol, None)


def flag(step: Step, name: str) -> str:
    return step.words[step.words.index(name) + 1]


def test_paper_figures_show_available_encoders() -> None:
    found = {step.name: step for step in drawn("imagenet", *PAIR).steps}
    assert list(found) == ["figure 2", "figure 4", "figure 7", "figure 8", "figure 6 pascal paper"]
    shown = {name: flag(step, "--encoder") for name, step in found.items()}
    assert shown == {
        "figure 2": "deit,mocov3",  # the paper's third is not there
        "figure 4": "mocov3",  # the one with a projector
        "figure 7": "deit,mocov3,mae",
        "figure 8": "deit,mocov3,mae",
        "figure 6 pascal paper": "deit,mocov3,mae",
    }
    assert flag(found["figure 7"], "--example") != flag(found["figure 8"], "--example")
    assert flag(found["figure 6 pascal paper"], "--labels") == ",".join(PAIR)
    for step in found.values():
        parse_words(step.words)


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_figure_follows_its_sources(protocol: str) -> None:
    steps = study(["deit", "dino"], protocol=protocol)
    names = {step.name for step in steps}
    made = figures(steps, protocol, None).steps
    assert {step.words[1] for step in made} == {
        "neighbours",
        "projected",
        "segmentation",
        "shares",
    }
    for step in made:
        assert set(step.after) <= names
        before = [one for one in steps if one.name in step.after]
        assert {one.encoder for one in before} == set(flag(step, "--encoder").split(","))
        # The stores behind the scores too: when they are made anew, so is the figure.
        assert {name for one in before for name in one.after} <= set(step.after)


def test_figures_that_cannot_be_drawn_say_why() -> None:
    told = {one.what: one.why for one in drawn("cub", "pascal-part", encoders=("beit",)).not_drawn}
    assert "windows of dataset imagenet" in told["figures 2, 4, 7, 8"]
    assert told["figure 6 of pascal"].endswith("there is none of pascal-object")
    assert "pa evaluate retrieval --layers all" in told["figure depth of cub"]
    assert "pa probe linear --sweep" in told["figure sweep of cub"]
    told = {one.what: one.why for one in drawn("imagenet", encoders=("beit",)).not_drawn}
    assert "DeiT, MoCo v3 and CAE; none is here" in told["figure 2"]
    assert "with a projector" in told["figure 4"]


# -- a study with figures -------------------------------------------------------------------------

# No number is of ImageNet's windows alone, so that there is nothing to report.
REQUEST = StudyRequest(datasets=("imagenet",), keep_going=True)


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


def to_do(workspace: Path, request: StudyRequest = REQUEST) -> set[str]:
    return {step.name for step in read_study(load(workspace), request).to_do if step.is_figure}


def test_figures_are_drawn_once(workspace: Path) -> None:
    names = {"figure 2", "figure 7", "figure 8"}
    assert to_do(workspace) == names
    states = {one.step.name: one.state for one in run_paper(load(workspace), REQUEST, Silent())}
    assert {states[name] for name in names} == {"ran"}
    shown = {one.name: one for one in figures_in(workspace / "figures")}
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
    config = load(workspace)
    (workspace / "figures").write_text("in the way of the folder")
    (workspace / "results").mkdir()
    ended = []
    with pytest.raises(StepError, match="pa report"):
        for one in run_paper(config, replace(REQUEST, keep_going=False), Silent()):
            ended.append((one.step.name, one.state))
    assert ended[-4:] == [
        ("figure 2", "failed"),
        ("figure 7", "failed"),
        ("figure 8", "failed"),
        ("report", "failed"),
    ]


def test_figures_can_be_left_out(workspace: Path) -> None:
    assert to_do(workspace, StudyRequest(figures=False)) == set()
    done = CliRunner().invoke(
        cli, ["-w", str(workspace), "run", "paper", "--script", "--no-figures"]
    )
    assert done.exit_code == 0
    assert "pa figure" not in done.stdout


def test_job_array_defers_figures(workspace: Path) -> None:
    lines = submissions(read_study(load(workspace), REQUEST), 4)
    commands = [word for line in lines for word in shlex.split(line)]
    assert not any("figure" in word for word in commands)
