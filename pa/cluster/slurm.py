"""Jobs on a Slurm cluster, through submitit, and the processes that run their commands.

A job runs command lines of `pa`, each in a process of its own, exactly as they would be typed. When
Slurm says that a job's time is nearly over, or takes its node away, the job puts itself back into
the queue, and goes on where it was: what is finished is kept by the commands themselves.

Nothing here asks sacct, which many clusters (and the tests') do not have: what is done is told by
the files of the workspace, not by the scheduler.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pa.data.files import WRITTEN, uninterrupted, write_json
from pa.errors import EXIT_PARTLY_DONE, MissingError, PaError, UsageError

Words = tuple[str, ...]

ENDED_WELL = (0, EXIT_PARTLY_DONE)
GRACE_SECONDS = 20.0  # below Slurm's usual KillWait of 30
# Slurm sends the signal that announces a time-out to every process of the step. It is for the job;
# the default action would kill the command.
ANNOUNCEMENTS = {signal.SIGUSR1, signal.SIGUSR2}
SBATCH_OPTIONS = ("partition", "account", "qos", "constraint")
# Characters that end a line or control a terminal; a tab is allowed in a shell line.
CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Resources:
    """What one task asks Slurm for, and how it starts.

    `minutes` is the time limit; `mem` as sbatch reads it (32G); `setup` are shell lines before the
    task; `python` is a shell command that starts Python, such as one inside a container;
    `parameters` are further options of sbatch; `requeues` is how often a task may time out.
    """

    minutes: int = 60
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    mem: str | None = None
    array_parallelism: int = 256
    setup: Sequence[str] = ()
    python: str | None = None
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    requeues: int = 20
    signal_seconds: int = 90

    def __post_init__(self) -> None:
        """Refuse text that would be more than one line of the sbatch script: `UsageError`."""
        texts = {name: getattr(self, name) for name in (*SBATCH_OPTIONS, "mem", "python")}
        texts |= {f"setup, line {number}": line for number, line in enumerate(self.setup, 1)}
        texts |= {f"parameters.{name!r}": f"{name}{text}" for name, text in self.parameters.items()}
        for name, text in texts.items():
            if text is not None and (found := CONTROL_CHARACTER.search(text)):
                raise UsageError(
                    f"[cluster] {name}: {text!r} has the control character {found[0]!r} at "
                    f"position {found.start()}. Expected: printable characters, as each value "
                    f"becomes one line of the sbatch script. Correct it in pa.toml, or in the "
                    f"option or variable that sets it."
                )


@dataclass(frozen=True)
class Steps:
    """Command lines of `pa`, run one after the other: what one task of a job does.

    `marks` are files, one per command or none, written when the command has ended well.
    """

    commands: tuple[Words, ...]
    marks: tuple[Path | None, ...] = ()

    def __call__(self) -> list[int]:
        """Run the commands and return their exit codes. The first that fails ends it: `PaError`."""
        codes = []
        for number, words in enumerate(self.commands):
            mark = self.marks[number] if number < len(self.marks) else None
            code = run_command(words, listing(mark))
            if code not in ENDED_WELL:
                raise PaError(f"{command_line(words)}: exit code {code}, see the lines above.")
            if mark is not None:
                write_mark(mark, words, code)
            codes.append(code)
        return codes

    def checkpoint(self) -> Any:
        """What runs after a requeue: the same again, as the commands resume by themselves."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def command_line(words: Sequence[str]) -> str:
    """The command as typed."""
    return shlex.join(["pa", *words])


def listing(mark: Path | None) -> dict[str, str]:
    """The variable that has a command list the files it writes, for `write_mark`."""
    if mark is None:
        return {}
    mark.parent.mkdir(parents=True, exist_ok=True)
    return {WRITTEN: str(mark.with_suffix(".files"))}


def write_mark(path: Path, words: Sequence[str], code: int) -> None:
    """Record that a command ended well, and the files and folders that it left."""
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    listed = path.with_suffix(".files")
    files: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        files = {json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()}
    # Relative, as a workspace may be moved.
    left = sorted(os.path.relpath(file, path.parent) for file in files if Path(file).exists())
    write_json(path, {"command": command_line(words), "code": code, "ended": ended, "files": left})
    listed.unlink(missing_ok=True)


def read_mark(path: Path) -> dict[str, Any] | None:
    """Read what `write_mark` left; None if it cannot be read, or a file of the command is gone."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all((path.parent / file).exists() for file in found["files"]):
            return found
    return None


def start_command(
    words: Sequence[str], environment: Mapping[str, str] | None = None, output: Any = None
) -> subprocess.Popen[bytes]:
    """Start `pa words…` in a process that signals of a nearing time-out do not reach.

    `environment` is added to this process's own; stdout and stderr go to `output`.
    """
    known = {**os.environ, **(environment or {})}
    # Threads beyond the CPUs of the task only get in each other's way.
    if "SLURM_CPUS_PER_TASK" in known:
        known.setdefault("OMP_NUM_THREADS", known["SLURM_CPUS_PER_TASK"])
    line = [sys.executable, "-u", "-m", "pa", *words]
    # A blocked signal stays blocked in the child, from its first instruction on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ANNOUNCEMENTS)
    try:
        return subprocess.Popen(line, env=known, stdout=output, stderr=output)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `pa words…`; its exit code, negative where a signal killed it.

    Whatever ends the waiting, a requeue or an interrupt, ends the command too.
    """
    children: list[subprocess.Popen[bytes]] = []
    try:
        with uninterrupted():  # a signal must not come between the start and the list
            children.append(start_command(words, environment))
        return children[0].wait()
    finally:
        stop(children)


def stop(children: Sequence[subprocess.Popen[Any]]) -> None:
    """Ask processes to stop, which keeps what is finished, and kill those that do not."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# -- Slurm ------------------------------------------------------------------------------------


def minutes(text: str) -> int:
    """A time limit as sbatch reads it, in minutes, rounded up.

    >>> minutes("90"), minutes("4:00:00"), minutes("1-12"), minutes("2-00:30"), minutes("10:30")
    (90, 240, 2160, 2910, 11)

    Raises `UsageError` for anything else.
    """
    days, dash, rest = text.partition("-") if "-" in text else ("0", "", text)
    parts = rest.split(":")
    if not all(part.isdigit() for part in (days, *parts)) or len(parts) > 3:
        raise UsageError(
            f"time limit {text!r}: write minutes, HH:MM:SS or D-HH:MM, as sbatch does."
        )
    numbers = [int(part) for part in parts]
    if dash:
        hours, minute, second = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minute, second = numbers
    else:
        hours, minute, second = 0, *[*numbers, 0][:2]
    total = ((int(days) * 24 + hours) * 60 + minute) * 60 + second
    if total < 1:
        raise UsageError(f"time limit {text!r} leaves no time.")
    return -(-total // 60)


def executor(folder: Path, name: str, resources: Resources, after: str | None = None) -> Any:
    """A submitit executor for jobs of these resources; its files go into `folder`.

    `after` is a job that must have ended, well or not. Raises `MissingError` without submitit.
    """
    try:
        from submitit.slurm.slurm import SlurmExecutor
    except ImportError:
        raise MissingError(
            "`pa submit` needs submitit. Install it with: pip install 'part-aware[cluster]'; or "
            "use --local, or an sbatch script of your own (docs/cluster.md)."
        ) from None

    class Executor(SlurmExecutor):  # type: ignore[misc, unused-ignore]
        """Can be made where there is no Slurm, to show the script."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    made = Executor(folder, max_num_timeout=resources.requeues, python=resources.python)
    extra = dict(resources.parameters)
    if resources.mem:
        extra["mem"] = resources.mem
    given = {
        **{name: getattr(resources, name) for name in SBATCH_OPTIONS},
        "gpus_per_node": resources.gpus or None,
        "cpus_per_task": resources.cpus,
        "setup": list(resources.setup) or None,
        "additional_parameters": extra or None,
        "dependency": f"afterany:{after}" if after else None,
    }
    made.update_parameters(
        job_name=name,
        time=resources.minutes,
        array_parallelism=resources.array_parallelism,
        signal_delay_s=resources.signal_seconds,
        stderr_to_stdout=True,
        **{key: value for key, value in given.items() if value is not None},
    )
    return made


def script(folder: Path, name: str, resources: Resources, tasks: int) -> str:
    """The sbatch script of an array of this many tasks, as `submit` would write it."""
    made = executor(folder, name, resources)
    if tasks > 1:
        made.parameters["map_count"] = tasks
    text: str = made._make_submission_file_text(made._submitit_command_str, "")
    return text


def submit(
    folder: Path, name: str, resources: Resources, jobs: Sequence[Steps], after: str | None = None
) -> str:
    """Submit one job, or an array of one task for each of several; its number.

    Raises `MissingError` where there is no Slurm, `PaError` with Slurm's words where it refuses.
    """
    made = executor(folder, name, resources, after)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if missing:
        raise MissingError(
            f"{' and '.join(missing)} not found on PATH: this machine does not belong to a Slurm "
            f"cluster. Use --local to run the tasks as processes of this machine, or --dry-run to "
            f"see the script."
        )

    try:
        with _outside_any_job(), made.batch():
            submitted = [made.submit(steps) for steps in jobs]
    except (FailedJobError, FailedSubmissionError) as error:
        raise PaError(f"Slurm did not take the job: {str(error).strip()}") from None
    return str(submitted[0].job_id).partition("_")[0]


@contextlib.contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hide the variables of the job whose shell this is typed in: sbatch would pass them on.

    submitit's `clean_env` hides SLURM_CONF too, which says where the cluster is, and the SBATCH_*
    by which a site sets defaults.
    """
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")) and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)
