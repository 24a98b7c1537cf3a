"""Run the steps of the study as commands, one after the other, or submit them to a cluster."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pa.cluster.slurm import run_command, stop
from pa.data.files import uninterrupted
from pa.errors import EXIT_PARTLY_DONE, PaError
from pa.study.plan import Study
from pa.study.state import log_path, record
from pa.study.steps import REPORT, Step
from pa.workspace import Workspace

SUCCESS = (0, EXIT_PARTLY_DONE)  # a step that skipped unreadable images is also done
LINES_SHOWN = 12  # of the log of a failed step


@dataclass(frozen=True)
class StepResult:
    """How a step ended; a step is skipped if one that it reads from failed."""

    step: Step
    state: Literal["done", "ran", "failed", "skipped"]
    seconds: float = 0.0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.step.name,
            "command": self.step.command,
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "why": self.why,
        }


class StepError(PaError):
    """A step of the study failed; the exit code is that of the step."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_study(
    workspace: Workspace, study: Study, *, keep_going: bool = False
) -> Iterator[StepResult]:
    """Run the steps that are not done, each in its own process, and yield how each ended.

    A process starts with empty memory, can be killed and repeated by hand, and is exactly the
    command that `--script` prints. A failed step raises `StepError`. With `keep_going` only the
    steps that read from it are skipped; a failed figure stops nothing, because nothing reads it.
    """
    by_name = {step.name: step for step in study.steps}
    failed: set[str] = set()
    for item in study.skipped:
        workspace.progress.note(item.message)
    number = 0
    for step in study.steps:
        if step.name in study.done:
            yield StepResult(step, "done")
            continue
        number += 1
        if broken := [name for name in step.after if name in failed]:
            failed.add(step.name)
            yield StepResult(step, "skipped", why=f"{broken[0]} failed")
            continue
        workspace.progress.note(f"[{number}/{len(study.remaining)}] {step.command}")
        start = time.perf_counter()
        code, tail = _run(workspace, step, by_name)
        seconds = time.perf_counter() - start
        if code in SUCCESS:
            yield StepResult(step, "ran", seconds)
            continue
        failed.add(step.name)
        log, last = log_path(workspace, step), tail.splitlines()[-1] if tail else ""
        yield StepResult(step, "failed", seconds, f"exit code {code}, {log}: {last}")
        # Nothing reads a figure, so that its failure stops no other step.
        if not keep_going and not step.is_figure:
            raise StepError(
                f"{step.command}\nended with exit code {code}:\n{tail}\nIts output: {log}. The "
                f"same command resumes here; --keep-going runs the steps that do not need this "
                f"one.",
                code if code > 0 else 1,
            )


def _run(workspace: Workspace, step: Step, by_name: dict[str, Step]) -> tuple[int, str]:
    """Run one step, and return its exit code and its last lines. Its stderr is its log."""
    log = log_path(workspace, step)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pa", "--workspace", str(workspace.path), *step.words]
    with log.open("w", encoding="utf-8") as errors:
        errors.write(f"$ {step.command}\n")
        errors.flush()
        children: list[subprocess.Popen[str]] = []
        try:
            with uninterrupted():  # a signal must not arrive between the start and the list
                process = subprocess.Popen(
                    [*words, "--json"], stdout=subprocess.PIPE, stderr=errors, text=True
                )
                children.append(process)
            output, _ = process.communicate()
        finally:
            stop(children)
    if process.returncode in SUCCESS:
        record(workspace, step, by_name, output)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return process.returncode, "\n".join(lines[-LINES_SHOWN:])


def submissions(study: Study, tasks: int) -> list[str]:
    """Return the remaining steps as independent `pa submit` commands.

    One command per encoder and dataset: its first extraction is the job array, and the job after
    the array runs all other steps in order. Figures and the report read from several of them; they
    are left to `pa run paper` after those jobs.
    """
    groups: dict[tuple[str | None, str | None], list[Step]] = {}
    for step in study.remaining:
        if step is not REPORT and not step.is_figure:
            groups.setdefault((step.encoder, step.dataset), []).append(step)
    lines = []
    for steps in groups.values():
        first, *rest = sorted(steps, key=lambda step: not step.is_extraction)
        words = ["pa", "submit", *first.words]
        if first.is_extraction:
            words += ["--tasks", str(tasks)]
        for step in rest:
            words += ["--then", shlex.join(step.words)]
        lines.append(shlex.join(words))
    return lines


def submit_study(workspace: Workspace, study: Study, tasks: int) -> None:
    """Submit the remaining steps; see `submissions`. Raise `StepError` if one is refused."""
    for line in submissions(study, tasks):
        workspace.progress.note(line)
        words = shlex.split(line)[1:]
        if code := run_command(["--workspace", str(workspace.path), *words]):
            raise StepError(
                f"{line}\nended with exit code {code}. Jobs submitted before it remain; the same "
                f"command submits what is left.",
                code,
            )
