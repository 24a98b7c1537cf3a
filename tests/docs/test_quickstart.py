"""Run the quick start in a shell, line by line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "quickstart.md"


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str, Path], str]:
    """Run shell lines with the `pa` of the current environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pa").write_text(f'#!/bin/sh\nexec {sys.executable} -m pa "$@"\n')
    (programs / "pa").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def run(lines: str, folder: Path) -> str:
        done = subprocess.run(
            ["sh", "-e", "-x", "-c", lines],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_quickstart_commands_run(
    tmp_path: Path, image_tree: Callable[..., Path], shell: Callable[[str, Path], str]
) -> None:
    """Run the demo on three photographs instead of all, then every other line of the page."""
    skimage = pytest.importorskip("skimage")
    few = tmp_path / "few"
    few.mkdir()
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        shutil.copy(Path(skimage.__file__).parent / "data" / name, few)
    home = tmp_path / "home"
    home.mkdir()
    image_tree(labels=2, per_label=5, name="home/photos")
    printed = shell(f"pa demo --images {few}", home)
    assert len(list((home / "pa-demo" / "figures").iterdir())) == 3
    # Every printed command works in the folder in which it was printed.
    commands = [line.strip() for line in printed.splitlines() if line.startswith("  pa ")]
    assert {"extract", "index", "search", "probe", "status", "demo"} == {
        command.split()[1] for command in commands
    }
    shell("\n".join(commands), home)

    marked = {block.mark: block.text for block in blocks(PAGE) if block.mark}
    assert set(marked) == {"run in pa-demo", "run with photos"}
    shell(marked["run in pa-demo"], home)
    assert (home / "pa-demo" / "top24.png").stat().st_size > 10_000
    shell(marked["run with photos"], home / "pa-demo")
    assert list((home / "study" / "results" / "probe-linear").glob("*.json"))
