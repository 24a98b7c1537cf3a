"""`pa run paper`: the whole study as its own commands, one after the other."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pa.cluster.slurm import run_command, stop
from pa.config import Config
from pa.data.files import uninterrupted
from pa.errors import EXIT_PARTLY_DONE, PaError
from pa.progress import Progress
from pa.study.state import log_path, record
from pa.study.steps import REPORT, Step
from pa.tasks.study import Study, StudyRequest, read_study

WELL = (0, EXIT_PARTLY_DONE)
SHOWN_LINES = 12


@dataclass(frozen=True)
class Ended:
    """How a step ended: `state` is done, ran, failed or skipped (a step before it failed)."""

    step: Step
    state: str
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
    """A step of the study failed; its exit code is the step's own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_paper(config: Config, request: StudyRequest, progress: Progress) -> Iterator[Ended]:
    """Run the steps that are not done, each as a process of its own, and tell of each.

    As processes: every step begins with the memory of an empty program, can be killed and typed by
    hand, and is exactly what the script shows. A step that failed stops the study with `StepError`,
    or with `keep_going` only the steps that read from it; nothing reads from a figure, so one that
    failed stops nothing. Raises what `read_study` raises.
    """
    found = read_study(config, request)
    by_name = {step.name: step for step in found.steps}
    failed: set[str] = set()
    for one in found.left_out:
        progress.note(one.said)
    number = 0
    for step in found.steps:
        if step.name in found.done:
            yield Ended(step, "done")
            continue
        number += 1
        if broken := [name for name in step.after if name in failed]:
            failed.add(step.name)
            yield Ended(step, "skipped", why=f"{broken[0]} failed")
            continue
        progress.note(f"[{number}/{len(found.to_do)}] {step.command}")
        began = time.perf_counter()
        code, tail = _run(config, step, by_name)
        seconds = time.perf_counter() - began
        if code in WELL:
            yield Ended(step, "ran", seconds)
            continue
        failed.add(step.name)
        last = tail.splitlines()[-1] if tail else ""
        yield Ended(step, "failed", seconds, f"exit code {code}, {log_path(config, step)}: {last}")
        if not request.keep_going and not step.is_figure:
            raise StepError(
                f"{step.command}\nended with exit code {code}:\n{tail}\nIts output: "
                f"{log_path(config, step)}. The same command goes on from here; --keep-going runs "
                f"the steps that do not need this one.",
                code if code > 0 else 1,
            )


def _run(config: Config, step: Step, by_name: dict[str, Step]) -> tuple[int, str]:
    """Run one step; its exit code and its last lines. stdout is its JSON, stderr its log."""
    log = log_path(config, step)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pa", "--workspace", str(config.workspace), *step.words]
    with log.open("w", encoding="utf-8") as errors:
        errors.write(f"$ {step.command}\n")
        errors.flush()
        children: list[subprocess.Popen[str]] = []
        try:
            with uninterrupted():  # a signal must not come between the start and the list
                process = subprocess.Popen(
                    [*words, "--json"], stdout=subprocess.PIPE, stderr=errors, text=True
                )
                children.append(process)
            printed, _ = process.communicate()
        finally:
            stop(children)
    if process.returncode in WELL:
        record(config, step, by_name, printed)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return process.returncode, "\n".join(lines[-SHOWN_LINES:])


def script(config: Config, study: Study) -> str:
    """The steps that are left as a plain shell script, a block for each encoder and dataset."""
    from pa.report.cells import cell
    from pa.study.script import Line, shell_script

    lines = [
        Line(step.command, step.encoder, step.dataset, tuple(cell(key) for key in step.fills))
        for step in study.to_do
    ]
    return shell_script(
        ["The steps of the study that are left, in order."], config.workspace, lines
    )


def submissions(study: Study, tasks: int) -> list[str]:
    """The steps that are left as `pa submit` lines that depend on nothing outside themselves.

    One line per encoder and dataset: its first extraction is the job array, and the job after the
    array does all that follows, in order. Figures and the report are of many such lines together:
    they are left to `pa run paper` once those have ended.
    """
    groups: dict[tuple[str | None, str | None], list[Step]] = {}
    for step in (one for one in study.to_do if one is not REPORT and not one.is_figure):
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


def submit_study(config: Config, study: Study, tasks: int, progress: Progress) -> None:
    """Submit what is left, line by line; see `submissions`. Raises `StepError` for a refusal."""
    for line in submissions(study, tasks):
        progress.note(line)
        words = shlex.split(line)[1:]
        if code := run_command(["--workspace", str(config.workspace), *words]):
            raise StepError(
                f"{line}\nended with exit code {code}. What was submitted before stays; the same "
                f"command submits what is left.",
                code,
            )
