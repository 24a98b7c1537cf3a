"""The study as steps: every cell is filled, every step comes after what it reads, all parse."""

from __future__ import annotations

import shlex

import pytest

from pa.errors import UsageError
from pa.report.cells import cell, encoders, published
from pa.study.steps import DATASETS, REPORT, Scale, steps_for, study_steps
from tests.support.commands import parse_words


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_cells_are_filled_once_by_existing_commands(protocol: str) -> None:
    steps = study_steps(protocol=protocol)
    filled = [key for step in steps for key in step.fills]
    assert sorted(filled) == sorted(item.key for item in published())
    for step in [*steps, REPORT]:
        parse_words(step.words)


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_step_follows_its_inputs(protocol: str) -> None:
    steps = study_steps(protocol=protocol)
    index = {step.name: i for i, step in enumerate(steps)}
    assert len(index) == len(steps)
    for i, step in enumerate(steps):
        assert all(index[name] < i for name in step.after)
        assert step.is_extraction or step.after
        assert step.is_extraction != bool(step.fills) or not step.fills


def test_commands_of_cell_are_steps_of_study() -> None:
    typed = {step.command for step in study_steps()}
    for item in published():
        commands = [step.command for step in steps_for(item)]
        assert set(commands) <= typed
        (last,) = (step for step in study_steps() if item.key in step.fills)
        assert commands[-1] == last.command


def test_released_protocol_trains_on_other_patches() -> None:
    commands = [step.command for step in steps_for(cell("t3/dino/cub/linear"), "released")]
    assert [shlex.split(c)[shlex.split(c).index("--protocol") + 1] for c in commands] == [
        "released-train",
        "released",
        "released",
    ]


def test_shared_store_is_extracted_once() -> None:
    """COCO's training images are the retrieval database and what classifiers train on."""
    steps = study_steps(["mae"], ["coco"])
    train = [s for s in steps if s.is_extraction and "train2017" in s.words]
    assert len(train) == 1
    assert "patch" in train[0].words[train[0].words.index("--features") + 1]


def test_scaling_down_is_in_the_commands() -> None:
    scale = Scale(limit=7, epochs=2, iterations=9, crops=3, seeds=4)
    for step in study_steps(["mae"], scale=scale):
        parse_words(step.words)
        if step.is_extraction:
            assert step.words[-2:] == ("--limit", "7") or "--limit 7" in step.command
        if step.words[:2] == ("probe", "segmentation"):
            assert "--iterations 9" in step.command
        elif step.words[0] == "probe":
            assert "--epochs 2 --seeds 4" in step.command
    with pytest.raises(UsageError, match="--crops 0"):
        Scale(crops=0)


def test_unknown_encoders_are_accepted_and_datasets_refused() -> None:
    steps = study_steps(["timm/vit"], ["lip", "lip"])
    assert [step.encoder for step in steps] == ["timm/vit"] * 3
    assert not any(step.fills for step in steps)
    with pytest.raises(UsageError, match="unknown dataset of the study 'cars'"):
        study_steps(datasets=["cars"])
    with pytest.raises(UsageError, match="protocol 'papr'"):
        study_steps(protocol="papr")
    assert {step.dataset for step in study_steps()} == set(DATASETS)
    assert {step.encoder for step in study_steps()} == set(encoders())
