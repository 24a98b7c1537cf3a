"""`pa report` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pa.report.cells import published
from tests.report.conftest import Runs
from tests.test_cli import Run, pa

__all__ = ["pa"]

FILES = ["cells.csv", "cells.parquet", "claims.csv", "claims.parquet"]
FILES += ["report.html", "report.md", "tables.tex"]


@pytest.fixture(autouse=True)
def here(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.root)


def test_all_formats_by_default(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub")
    done = pa("report")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (runs.root / "reports").iterdir()) == FILES
    assert "Table 3     48         1" in done.out
    assert "34 claims by" in done.out
    assert done.out.splitlines()[-1].endswith("claims.parquet")


def test_some_formats_in_a_folder_of_ones_own(pa: Run, runs: Runs, tmp_path: Path) -> None:
    runs.probe("deit", "cub")
    done = pa("report", "--format", "md,html", "--out", str(tmp_path / "new" / "place"))
    assert done.code == 0, done.err
    made = sorted(path.name for path in (tmp_path / "new" / "place").iterdir())
    assert made == ["report.html", "report.md"]


def test_json_is_one_object(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub", accuracy=0.9)
    found = pa("report", "--json", "--format", "csv").json
    assert (found["cells"], found["measured"], found["in_the_papers_setting"]) == (230, 1, 1)
    assert found["numbers"][0]["key"] == "t3/deit/cub/linear"
    assert found["numbers"][0]["value"] == pytest.approx(90)
    assert len(found["claims"]) == 34
    assert len(found["missing"]) == 229
    assert [Path(path).name for path in found["files"]] == ["cells.csv", "claims.csv"]


def test_no_workspace(pa: Run, tmp_path: Path) -> None:
    done = pa("--workspace", str(tmp_path / "nowhere"), "report")
    assert done.code == 3
    assert "there is no workspace at" in done.err


def test_no_results(pa: Run) -> None:
    done = pa("report")
    assert done.code == 3
    assert "there are no results in" in done.err
    assert "pa report --missing" in done.err


def test_a_damaged_result_is_left_out_with_exit_code_6(pa: Run, runs: Runs) -> None:
    runs.probe("dino", "cub")
    runs.probe("deit", "cub").write_text("{ torn")
    done = pa("report", "--format", "html")
    assert done.code == 6
    assert "could not be read, and left out: 1" in done.out
    assert "deit-cls" in done.out
    assert "Table 3     48         1" in done.out
    assert "1 file could not be read" in (runs.root / "reports" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "docx"), "unknown format of a report 'docx'"),
        (("--out", "taken"), "taken is not a folder"),
        (("--missing", "--format", "md"), "--missing writes nothing"),
    ],
)
def test_wrong_usage(pa: Run, runs: Runs, words: tuple[str, ...], said: str) -> None:
    runs.probe("deit", "cub")
    (runs.root / "taken").write_text("")
    done = pa("report", *words)
    assert done.code == 2
    assert said in done.err


def test_missing_cells_are_a_script(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub")
    done = pa("report", "--missing")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1].startswith("# 229 of 230 cells")
    commands = [line for line in lines if line.startswith("pa ")]
    assert len(set(commands)) == len(commands)
    comments = [line for line in lines if line.startswith("# Table ")]
    assert len(comments) == 229
    assert "# Table 3, DeiT, CUB-200-2011 Linear" not in comments


def test_missing_without_any_result(pa: Run) -> None:
    found = json.loads(pa("report", "--missing", "--json").out)
    assert found["missing"] == [cell.key for cell in published()]
    filled = [key for entry in found["commands"] for key in entry["fills"]]
    assert sorted(filled) == sorted(found["missing"])


def test_a_report_loads_no_torch(runs: Runs) -> None:
    """It is read on laptops, from results that a cluster made."""
    runs.retrieval("deit")
    script = (
        "import sys\n"
        "from pa.cli import cli\n"
        "try:\n    cli.main(['report', '--format', 'html,md,latex,csv,parquet'])\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'timm', 'faiss', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=runs.root
    )
    assert done.stdout.splitlines()[-1] == "[]"
