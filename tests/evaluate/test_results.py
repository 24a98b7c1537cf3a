from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import pa
from pa.evaluate.bootstrap import Mean
from pa.evaluate.intervals import Interval
from pa.evaluate.result_files import read_result, write_result
from pa.evaluate.result_parts import (
    Gallery,
    LabelsReference,
    Pair,
    RecordedProtocol,
    SegmentationSelection,
    SplitSelection,
    TargetSelection,
    TrainTest,
)
from pa.evaluate.results import (
    RESULT_FORMAT,
    RESULT_TYPES,
    AccuracyScores,
    MeanScores,
    PixelScores,
    Result,
    versions,
)
from pa.evaluate.segmentation import Measure
from tests.support.results import STORE, linear_result

RESULT = linear_result()


def test_written_below_the_task_and_read_back(tmp_path: Path) -> None:
    path = write_result(tmp_path / "results", RESULT)
    name = f"cub-parts-timm-vit-pooled-{RESULT.digest[:12]}.json"
    assert path == tmp_path / "results" / "probe-linear" / name
    file = read_result(path)
    assert file.result == replace(RESULT, seconds={"train": 1.235})
    assert (file.path, file.files, file.versions) == (path, {}, versions())
    content = json.loads(path.read_text())
    assert content["format"] == RESULT_FORMAT
    assert content["digest"] == RESULT.digest
    assert content["scores"]["accuracy"]["n_groups"] == 3


@pytest.mark.parametrize("task", RESULT_TYPES)
def test_results_are_read_as_class_of_their_task(tmp_path: Path, task: str) -> None:
    result = example(RESULT_TYPES[task])
    content = result.to_json()
    file = read_result(write_result(tmp_path, result))
    assert type(file.result) is RESULT_TYPES[task]
    assert file.result == result
    assert file.result.to_json() == content
    assert list(file.result.to_json()["scores"]) == list(content["scores"])


def example(kind: type[Result]) -> Result:
    """Return a result of a task with a value in every field."""
    hints = get_type_hints(kind)
    mean = Mean(0.4, 7, 5, Interval(0.3, 0.5, "t"), Interval(0.35, 0.45, "b"), 0.1, 0.2)
    scores: dict[Any, Any] = {
        MeanScores: {"ap": mean, "ap/tail": replace(mean, interval=None)},
        AccuracyScores: RESULT.scores,
        PixelScores: {"mIoU": Measure(0.5, 90, 1, None, 0.2)},
    }
    labels = LabelsReference("lip", 19, certainty="certain", sha256="ab")
    selections: dict[Any, Any] = {
        TargetSelection: TargetSelection("label"),
        SplitSelection: RESULT.selection,
        SegmentationSelection: SegmentationSelection(
            rule="2 of 6 held out", test_fraction=0.2, seed=0, labels=labels
        ),
    }
    stores: dict[Any, Any] = {
        Gallery: Gallery(STORE),
        TrainTest: TrainTest(STORE, STORE),
        Pair: Pair(STORE, STORE),
    }
    names = [item.name for item in fields(hints["counts"])]
    return kind(
        protocol=RecordedProtocol({"k": 3}),
        stores=stores[hints["stores"]],
        representation="cls",
        selection=selections[hints["selection"]],
        counts=hints["counts"](**{name: n for n, name in enumerate(names)}),
        scores=scores[get_type_hints(kind, include_extras=True)["scores"]],
        seconds={"score": 0.5},
        details={"device": "cpu"},
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"protocol": RecordedProtocol({"protocol": "released"})},
        {"stores": TrainTest(STORE, replace(STORE, fingerprint="02" * 32))},
        {"representation": "cls"},
        {"selection": SplitSelection("held out", "label", where="x1 < 3")},
    ],
)
def test_name_follows_what_determines_the_content(changed: dict[str, Any]) -> None:
    assert replace(RESULT, **changed).name != RESULT.name


def test_name_ignores_what_came_out() -> None:
    other = replace(RESULT, scores={}, seconds={}, details={"a": 1})
    assert other.name == RESULT.name


def test_versions() -> None:
    actual = versions()
    assert actual["pa"] == pa.__version__
    assert set(actual) == {"pa", "python", "torch", "numpy"}


def test_scores_and_results_import_no_torch() -> None:
    code = (
        "import sys, pa.evaluate.results, pa.evaluate.classification;"
        "sys.exit(bool({'torch', 'timm', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
