"""SIGTERM and Ctrl-C end a command wherever they meet it, and its children with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pa.errors import EXIT_INTERRUPTED

# `pa stuck`: runs {body}, then never ends.
PROGRAM = """
import signal, sys, time, weakref
from pathlib import Path
from pa.cli import cli, main

class Resource:
    pass

class Destroyed:
    def __del__(self):
        signal.raise_signal(signal.{name})

@cli.command()
def stuck():
    {body}
    print("works on", flush=True)
    while True:
        time.sleep(0.01)

sys.argv = ["pa", "stuck"]
main()
"""
SWALLOWED = {
    "destructor": "Destroyed()",
    "weak reference": (
        "resource = Resource(); "
        "kept = weakref.ref(resource, lambda ref: signal.raise_signal(signal.{name})); "
        "del resource"
    ),
    "library that catches everything": (
        "exec('try: signal.raise_signal(signal.{name})\\nexcept BaseException: pass')"
    ),
}


def run(body: str, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("{body}", body).replace("{name}", name)
    (folder / "stuck.py").write_text(program)
    return subprocess.run(
        [sys.executable, "-m", "stuck"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("callback", SWALLOWED)
def test_signal_with_dropped_exception_is_delivered_again(
    tmp_path: Path, callback: str, name: str
) -> None:
    done = run(SWALLOWED[callback], name, tmp_path)
    assert done.stdout == "works on\n"  # the first one was dropped
    assert done.returncode == EXIT_INTERRUPTED
    assert "run the same command again to continue" in done.stderr


def test_interrupt_converted_by_library_exits_130(tmp_path: Path) -> None:
    body = (
        "exec('try: signal.raise_signal(signal.SIGTERM)\\n"
        'except BaseException: raise ValueError("no shape") from None\')'
    )
    done = run(body, "SIGTERM", tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_INTERRUPTED, "")
    assert "Traceback" not in done.stderr


def test_clean_up_is_not_interrupted(tmp_path: Path) -> None:
    """Neither a second SIGTERM nor the repetition of the first one cuts the clean-up short."""
    again = "[signal.raise_signal(n) for n in (signal.SIGTERM, signal.SIGALRM)]"
    body = (
        "exec('try: signal.raise_signal(signal.SIGTERM)\\n"
        f'finally: {again}; Path("clean").touch()\')'
    )
    done = run(body, "SIGTERM", tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_INTERRUPTED, "")
    assert (tmp_path / "clean").exists()


def test_stopped_study_stops_its_step(study_workspace: Path) -> None:
    """SIGTERM reaches `pa run` alone; Ctrl-C in a terminal reaches its child too."""
    study = subprocess.Popen(
        [sys.executable, "-m", "pa", "-w", str(study_workspace), "run", "paper", "--epochs", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 100
    while not (steps := children(study.pid)):
        assert study.poll() is None, study.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)
    study.terminate()
    _, err = study.communicate(timeout=100)
    assert study.returncode == EXIT_INTERRUPTED, err
    assert not list(study_workspace.rglob("manifest.json"))  # the step was not completed
    for pid in steps:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def children(parent: int) -> list[int]:
    """The process ids of a process's children."""
    collected = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            collected.append(int(status.parent.name))
    return collected
