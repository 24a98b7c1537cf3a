"""`pa report` as a user types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pa.errors import StorageError
from pa.report.cells import published
from tests.support.commands import Run
from tests.support.report import Runs

FILES = ["cells.csv", "cells.parquet", "claims.csv", "claims.parquet"]
FILES += ["figures.tex", "report.html", "report.md"]
FILES += ["results.csv", "results.parquet", "tables.tex"]


@pytest.fixture(autouse=True)
def here(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.root)


def test_command_writes_all_formats_by_default(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub")
    done = pa("report")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (runs.root / "reports").iterdir()) == FILES
    assert "Table 3     48         1" in done.out
    assert "34 claims by" in done.out
    assert done.out.splitlines()[-1].endswith("results.parquet")


def test_command_writes_selected_formats_to_folder(pa: Run, runs: Runs, tmp_path: Path) -> None:
    runs.probe("deit", "cub")
    done = pa("report", "--format", "md,html", "--out", str(tmp_path / "new" / "place"))
    assert done.code == 0, done.err
    result = sorted(path.name for path in (tmp_path / "new" / "place").iterdir())
    assert result == ["report.html", "report.md"]


def test_json_is_one_object(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub", accuracy=0.9)
    output = pa("report", "--json", "--format", "csv").json
    assert (output["cells"], output["measured"], output["in_the_papers_setting"]) == (230, 1, 1)
    assert output["numbers"][0]["key"] == "t3/deit/cub/linear"
    assert output["numbers"][0]["value"] == pytest.approx(90)
    assert len(output["claims"]) == 34
    assert len(output["missing"]) == 229
    assert [Path(path).name for path in output["files"]] == [
        "cells.csv",
        "claims.csv",
        "results.csv",
    ]


def test_missing_workspace_exits_3(pa: Run, tmp_path: Path) -> None:
    done = pa("--workspace", str(tmp_path / "nowhere"), "report")
    assert done.code == 3
    assert "does not exist" in done.err


def test_missing_results_exit_3(pa: Run) -> None:
    done = pa("report")
    assert done.code == 3
    assert "holds no results" in done.err
    assert "pa report --missing" in done.err


def test_damaged_result_is_skipped_with_exit_code_6(pa: Run, runs: Runs) -> None:
    runs.probe("dino", "cub")
    runs.probe("deit", "cub").write_text("{ torn")
    done = pa("report", "--format", "html")
    assert done.code == 6
    assert "files that could not be read: 1" in done.out
    assert "deit-cls" in done.out
    assert "Table 3     48         1" in done.out
    assert "1 file could not be read" in (runs.root / "reports" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "docx"), "unknown format of a report 'docx'"),
        (("--missing", "--format", "md"), "--missing writes nothing"),
    ],
)
def test_wrong_usage(pa: Run, runs: Runs, words: tuple[str, ...], message: str) -> None:
    runs.probe("deit", "cub")
    done = pa("report", *words)
    assert done.code == 2
    assert message in done.err


def test_missing_cells_are_a_script(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub")
    done = pa("report", "--missing")
    assert done.code == 0, done.err
    titles = re.findall(r"^# -- (.+) --$", done.out, re.MULTILINE)
    assert titles.count("MoCo v3 on CUB-200-2011") == 1
    assert len(set(titles)) == len(titles) == len({(c.encoder, c.dataset) for c in published()})
    lines = done.out.splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "set -e" in lines
    assert lines[1].startswith("# 229 of 230 cells")
    commands = [line for line in lines if line.startswith("pa ")]
    assert len(set(commands)) == len(commands)
    comments = [line for line in lines if line.startswith("# Table ")]
    assert len(comments) == 229
    assert "# Table 3, CUB-200-2011, DeiT, linear, top-1" not in comments


def stubbed(folder: Path, code: int) -> dict[str, str]:
    """An environment in which `pa` notes where and how it was called, and ends with a code."""
    folder.mkdir()
    stub = folder / "pa"
    stub.write_text(f'#!/bin/sh\nprintf "%s: %s\\n" "$PWD" "$*"\nexit {code}\n')
    stub.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("code", "calls"), [(0, None), (6, None), (3, 1)])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_missing_script_runs(
    pa: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, code: int, calls: int
) -> None:
    """In a workspace with a name to quote. Exit code 6 means that images could not be read; the script continues."""
    root = tmp_path / "it's $HOME\n`x` & co"
    root.mkdir()
    monkeypatch.chdir(root)
    script = pa("report", "--missing").out
    check = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
    assert (check.returncode, check.stderr) == (0, "")
    done = subprocess.run(
        [shell, "-c", script],
        env=stubbed(tmp_path / "bin", code),
        text=True,
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0 if calls is None else code, "")
    expected = [line[3:] for line in script.splitlines() if line.startswith("pa ")]
    ran = [line.rpartition(": ")[2] for line in done.stdout.splitlines() if ": " in line]
    assert ran == expected[:calls]
    assert done.stdout.startswith(f"{root}: extract")


def test_missing_without_any_result(pa: Run) -> None:
    output = json.loads(pa("report", "--missing", "--json").out)
    assert output["missing"] == [cell.key for cell in published()]
    filled = [key for entry in output["commands"] for key in entry["fills"]]
    assert sorted(filled) == sorted(output["missing"])


def wrong_places(root: Path) -> dict[str, Path]:
    (root / "file").write_text("here before")
    (root / "page" / "report.html").mkdir(parents=True)
    (root / "dangling").symlink_to(root / "nowhere" / "at all")
    return {
        "a file has the name of the folder": root / "file",
        "a file has the name of a parent folder": root / "file" / "below",
        "the folder cannot be created": Path("/proc/foo"),
        "File name too long": root / ("x" * 300),
        "a folder has the name of the file": root / "page",
    }


def test_unwritable_path_is_reported(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub")
    for reason, folder in wrong_places(runs.root).items():
        before = sorted(runs.root.rglob("*"))
        done = pa("report", "--out", str(folder))
        assert done.code == StorageError.exit_code, folder
        assert f"cannot write the report to {folder}: {reason}" in done.err
        assert "--out DIR" in done.err
        assert sorted(runs.root.rglob("*")) == before
    assert (runs.root / "file").read_text() == "here before"


def test_full_disk_keeps_previous_report(runs: Runs) -> None:
    """A limit on the size of files: the Markdown is within it, and the table after it is not."""
    runs.probe("deit", "cub")
    (runs.root / "reports").mkdir()
    (runs.root / "reports" / "report.md").write_text("the one before")
    limited = (
        "import resource, sys\n"
        "from pa.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, 32_000))\n"
        "sys.argv = ['pa', 'report', *sys.argv[1:]]\n"
        "main()"
    )
    for out, left in (("reports", ["report.md"]), ("new/deep", None)):
        done = subprocess.run(
            [sys.executable, "-c", limited, "--format", "md,csv", "--out", out],
            capture_output=True,
            text=True,
            check=False,
            cwd=runs.root,
        )
        assert done.returncode == StorageError.exit_code, done.stderr
        assert f"cannot write the report to {out}: File too large" in done.stderr
        folder = runs.root / out
        actual = sorted(p.name for p in folder.iterdir()) if folder.exists() else None
        assert actual == left
    assert not (runs.root / "new").exists()
    assert (runs.root / "reports" / "report.md").read_text() == "the one before"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_reported(pa: Run, runs: Runs) -> None:
    runs.probe("deit", "cub")
    (runs.root / "reports").mkdir(mode=0o500)
    done = pa("report")
    assert done.code == StorageError.exit_code
    assert "Permission denied" in done.err
    assert list((runs.root / "reports").iterdir()) == []


def test_report_does_not_import_torch(runs: Runs) -> None:
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
