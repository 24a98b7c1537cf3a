from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pa
from pa.errors import MismatchError, MissingError
from pa.evaluate.results import RESULT_FORMAT, Result, read_result, versions, write_result

STORE = {
    "title": "cub/test/parts/timm/vit/0123",
    "fingerprint": "01" * 32,
    "dataset": "cub",
    "split": "test",
    "view": "parts",
    "encoder": "timm/vit",
    "limit": None,
}
RESULT = Result(
    task="retrieval",
    protocol={"protocol": "paper"},
    stores={"gallery": STORE},
    representation="cls",
    selection={"where": None},
    counts={"rows": 3},
    scores={"map": {"value": 0.25}},
    seconds={"score": 1.23456},
)


def test_written_below_the_task_and_read_back(tmp_path: Path) -> None:
    path = write_result(tmp_path / "results", RESULT)
    assert (
        path
        == tmp_path / "results" / "retrieval" / f"cub-parts-timm-vit-cls-{RESULT.digest[:12]}.json"
    )
    fields = read_result(path)
    assert fields["format"] == RESULT_FORMAT
    assert fields["stores"] == {"gallery": STORE}
    assert fields["scores"] == {"map": {"value": 0.25}}
    assert fields["seconds"] == {"score": 1.235}
    assert fields["digest"] == RESULT.digest
    assert fields["versions"] == versions()


@pytest.mark.parametrize(
    "changed",
    [
        {"task": "probe-linear"},
        {"protocol": {"protocol": "released"}},
        {"stores": {"gallery": {**STORE, "fingerprint": "02" * 32}}},
        {"stores": {"train": STORE}},
        {"representation": "pooled"},
        {"selection": {"where": "x1 < 3"}},
    ],
)
def test_name_follows_what_determines_the_content(changed: dict[str, object]) -> None:
    assert replace(RESULT, **changed).name != RESULT.name  # type: ignore[arg-type]


def test_name_ignores_what_came_out() -> None:
    other = replace(RESULT, scores={}, seconds={}, counts={}, details={"a": 1})
    assert other.name == RESULT.name


def test_versions() -> None:
    found = versions()
    assert found["pa"] == pa.__version__
    assert set(found) == {"pa", "python", "torch", "numpy"}


def test_files_that_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no result at"):
        read_result(tmp_path / "none.json")
    path = tmp_path / "result.json"
    path.write_text("{")
    with pytest.raises(MismatchError, match="is not readable JSON"):
        read_result(path)
    path.write_text('{"format": 9}')
    with pytest.raises(
        MismatchError, match=f"result format 9, this version reads {RESULT_FORMAT}"
    ) as caught:
        read_result(path)
    assert caught.value.exit_code == 4
    path.write_text("[]")
    with pytest.raises(MismatchError, match="result format None"):
        read_result(path)


def test_scores_and_results_import_no_torch() -> None:
    code = (
        "import sys, pa.evaluate.results, pa.evaluate.classification;"
        "sys.exit(bool({'torch', 'timm', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
