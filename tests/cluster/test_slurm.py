"""Time limits, and commands that run as processes of a task."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pa.cluster import slurm
from pa.cluster.slurm import Steps
from pa.errors import PaError, UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("4:00:00", 240), ("10:30", 11), ("0:00:30", 1), ("2-0", 2880), ("1-2:30", 1590)],
)
def test_minutes_reads_time_limits_of_sbatch(text: str, expected: int) -> None:
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize("text", ["", "four", "0", "-5", "1:2:3:4", "1.5", "3-"])
def test_minutes_refuses_other_text(text: str) -> None:
    with pytest.raises(UsageError, match="time limit"):
        slurm.minutes(text)


def test_start_command_blocks_timeout_signals(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGUSR2 kills by default; it is blocked in the process of a task, and only there."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print(os.environ['OMP_NUM_THREADS'])"
    monkeypatch.setattr(slurm, "sys", SimpleNamespace(executable=fake_python(tmp_path, code)))
    with (tmp_path / "out").open("wb") as output:
        assert slurm.start_command(("status",), output=output).wait(30) == 0
    assert (tmp_path / "out").read_text() == "3\n"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & slurm.ANNOUNCEMENTS == set()


def test_run_command_stops_process_when_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(slurm, "sys", SimpleNamespace(executable=fake_python(tmp_path, code)))

    def requeued(number: int, frame: object) -> None:
        raise SystemExit(-1)  # what submitit's handler does

    before = signal.signal(signal.SIGALRM, requeued)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(SystemExit):
            slurm.run_command(("status",))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def fake_python(folder: Path, code: str) -> str:
    """Return a program that ignores its arguments and runs some code."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return str(script)


def test_steps_stop_at_first_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    codes = {"one": 0, "two": 6, "three": -9, "four": 0}
    run: list[str] = []
    monkeypatch.setattr(
        slurm, "run_command", lambda words, _: run.append(words[0]) or codes[words[0]]
    )
    with pytest.raises(PaError, match="pa three: exit code -9"):
        Steps(tuple((name,) for name in codes))()
    assert run == ["one", "two", "three"]
    Steps((("two",),), tmp_path / "two")()
    marker = slurm.read_marker(tmp_path / "two")
    assert marker is not None
    assert (marker["command"], marker["code"]) == ("pa two", 6)
    with pytest.raises(PaError, match="exit code -9"):
        Steps((("three",),), tmp_path / "three")()
    assert not (tmp_path / "three").exists()
    assert slurm.read_marker(tmp_path / "three") is None
