"""Run commands as Slurm jobs, through submitit, and as processes.

A job runs command lines of `pa`, each in its own process, exactly as a user would type them. Before
its time limit, or when its node is taken away, a job requeues itself and resumes: the commands
themselves keep what is finished.

No function needs sacct, which many clusters lack: the files of the workspace record what is done,
not the scheduler.
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

Words = tuple[str, ...]  # a command line without the word pa

SUCCESS_CODES = (0, EXIT_PARTLY_DONE)
GRACE_SECONDS = 20.0  # below Slurm's default KillWait of 30 s
# Slurm sends the signal that announces a timeout to every process of a step. Only the job handles
# it; its default action would kill the command.
ANNOUNCEMENTS = {signal.SIGUSR1, signal.SIGUSR2}
SBATCH_OPTIONS = ("partition", "account", "qos", "constraint")
# Characters that end a line or control a terminal; a shell line may contain tabs.
CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Resources:
    """The resources of one task, and how it starts."""

    minutes: int = 60  # time limit
    partition: str | None = None
    account: str | None = None
    qos: str | None = None  # quality of service
    constraint: str | None = None  # features that a node must have
    gpus: int | None = None  # None and 0: no GPU is requested
    cpus: int | None = None  # None: the default of the site
    mem: str | None = None  # in the syntax of sbatch, such as 32G
    array_parallelism: int = 256  # the default of submitit
    setup: Sequence[str] = ()  # shell lines before the task
    python: str | None = None  # shell command that starts Python, such as one in a container
    parameters: Mapping[str, str | int] = field(default_factory=dict)  # other options of sbatch
    requeues: int = 20  # permitted timeouts: a task that never finishes a shard must end
    signal_seconds: int = 90  # the default of submitit

    def __post_init__(self) -> None:
        """Raise `UsageError` for text that would span several lines of the sbatch script."""
        texts = {name: getattr(self, name) for name in (*SBATCH_OPTIONS, "mem", "python")}
        texts |= {f"setup, line {number}": line for number, line in enumerate(self.setup, 1)}
        texts |= {f"parameters.{name!r}": f"{name}{text}" for name, text in self.parameters.items()}
        for name, text in texts.items():
            if text is not None and (match := CONTROL_CHARACTER.search(text)):
                raise UsageError(
                    f"[cluster] {name}: {text!r} has the control character {match[0]!r} at "
                    f"position {match.start()}. Expected printable characters, since each value "
                    f"becomes one line of the sbatch script. Correct it in pa.toml, or in the "
                    f"option or variable that sets it."
                )


@dataclass(frozen=True)
class Steps:
    """Command lines of `pa` that one task runs one after the other."""

    commands: tuple[Words, ...]
    marker: Path | None = None  # records the success of the command, if it is the only one

    def __call__(self) -> list[int]:
        """Run the commands and return their exit codes; raise `PaError` at the first failure."""
        codes = []
        for words in self.commands:
            code = run_command(words, file_list_variable(self.marker))
            if code not in SUCCESS_CODES:
                raise PaError(f"{command_line(words)}: exit code {code}, see the lines above.")
            if self.marker is not None:
                write_marker(self.marker, words, code)
            codes.append(code)
        return codes

    def checkpoint(self) -> Any:
        """Return the work of a requeued job: the same again, since the commands resume."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def command_line(words: Sequence[str]) -> str:
    """Return the command as a user would type it."""
    return shlex.join(["pa", *words])


def file_list_variable(marker: Path | None) -> dict[str, str]:
    """Return the environment variable that makes a command list the files it writes."""
    if marker is None:
        return {}
    marker.parent.mkdir(parents=True, exist_ok=True)
    return {WRITTEN: str(marker.with_suffix(".files"))}


def write_marker(path: Path, words: Sequence[str], code: int) -> None:
    """Record that a command succeeded, and the files and folders that it wrote."""
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    listed = path.with_suffix(".files")
    files: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        files = {json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()}
    # Relative, as a workspace may be moved.
    left = sorted(os.path.relpath(file, path.parent) for file in files if Path(file).exists())
    write_json(path, {"command": command_line(words), "code": code, "ended": ended, "files": left})
    listed.unlink(missing_ok=True)


def read_marker(path: Path) -> dict[str, Any] | None:
    """Return the record of a success; None if it is unreadable or a file of it is missing."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all((path.parent / file).exists() for file in fields["files"]):
            return fields
    return None


def start_command(
    words: Sequence[str], environment: Mapping[str, str] | None = None, output: Any = None
) -> subprocess.Popen[bytes]:
    """Start `pa words…` in a process that ignores the signals announcing a timeout.

    `environment` is added to that of this process; stdout and stderr go to `output`.
    """
    variables = {**os.environ, **(environment or {})}
    # More threads than CPUs of the task slow each other down.
    if "SLURM_CPUS_PER_TASK" in variables:
        variables.setdefault("OMP_NUM_THREADS", variables["SLURM_CPUS_PER_TASK"])
    line = [sys.executable, "-u", "-m", "pa", *words]
    # A blocked signal stays blocked in the child, from its first instruction on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ANNOUNCEMENTS)
    try:
        return subprocess.Popen(line, env=variables, stdout=output, stderr=output)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `pa words…` and return its exit code, negative if a signal killed it.

    A requeue or an interrupt that ends the waiting also ends the command.
    """
    children: list[subprocess.Popen[bytes]] = []
    try:
        with uninterrupted():  # a signal must not come between the start and the list
            children.append(start_command(words, environment))
        return children[0].wait()
    finally:
        stop(children)


def stop(children: Sequence[subprocess.Popen[Any]]) -> None:
    """Terminate processes, which keep what is finished, and kill those that do not end."""
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
    """Return a time limit in the syntax of sbatch as minutes, rounded up.

    >>> minutes("90"), minutes("4:00:00"), minutes("1-12"), minutes("2-00:30"), minutes("10:30")
    (90, 240, 2160, 2910, 11)

    Raise `UsageError` for anything else.
    """
    days, dash, rest = text.partition("-") if "-" in text else ("0", "", text)
    parts = rest.split(":")
    if not all(part.isdigit() for part in (days, *parts)) or len(parts) > 3:
        raise UsageError(
            f"time limit {text!r}: expected minutes, HH:MM:SS or D-HH:MM, as for sbatch."
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
        raise UsageError(f"time limit {text!r} is zero.")
    return -(-total // 60)  # rounded up


def executor(folder: Path, name: str, resources: Resources, after: str | None = None) -> Any:
    """Return a submitit executor for jobs of these resources; its files go into `folder`.

    `after` is a job that must end first, with or without success. Raise `MissingError` if submitit
    is not installed.
    """
    try:
        from submitit.slurm.slurm import SlurmExecutor
    except ImportError:
        raise MissingError(
            "`pa submit` needs submitit. Install it with: pip install 'part-aware[cluster]'; or "
            "use --local, or write an sbatch script (docs/cluster.md)."
        ) from None

    class Executor(SlurmExecutor):  # type: ignore[misc, unused-ignore]
        """An executor that works without Slurm, to show the script."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    submitter = Executor(folder, max_num_timeout=resources.requeues, python=resources.python)
    extra = {**resources.parameters, **({"mem": resources.mem} if resources.mem else {})}
    options = {
        **{name: getattr(resources, name) for name in SBATCH_OPTIONS},
        "gpus_per_node": resources.gpus or None,
        "cpus_per_task": resources.cpus,
        "setup": list(resources.setup) or None,
        "additional_parameters": extra or None,
        "dependency": f"afterany:{after}" if after else None,
    }
    submitter.update_parameters(
        job_name=name,
        time=resources.minutes,
        array_parallelism=resources.array_parallelism,
        signal_delay_s=resources.signal_seconds,
        stderr_to_stdout=True,
        **{key: value for key, value in options.items() if value is not None},
    )
    return submitter


def script(folder: Path, name: str, resources: Resources, tasks: int) -> str:
    """Return the sbatch script that `submit` would write for an array of tasks."""
    submitter = executor(folder, name, resources)
    if tasks > 1:
        submitter.parameters["map_count"] = tasks
    text: str = submitter._make_submission_file_text(submitter._submitit_command_str, "")
    return text


def submit(
    folder: Path, name: str, resources: Resources, jobs: Sequence[Steps], after: str | None = None
) -> str:
    """Submit one job, or an array with one task per job, and return its number.

    Raise `MissingError` without Slurm, and `PaError` with Slurm's message if it refuses the job.
    """
    submitter = executor(folder, name, resources, after)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if missing:
        raise MissingError(
            f"{' and '.join(missing)} not found on PATH: this machine is not part of a Slurm "
            f"cluster. Use --local to run the tasks as processes of this machine, or --dry-run to "
            f"see the script."
        )

    try:
        with _outside_any_job(), submitter.batch():
            submitted = [submitter.submit(steps) for steps in jobs]
    except (FailedJobError, FailedSubmissionError) as error:
        raise PaError(f"Slurm refused the job: {str(error).strip()}") from None
    return str(submitted[0].job_id).partition("_")[0]


@contextlib.contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hide the variables of a surrounding job, which sbatch would pass on.

    submitit's `clean_env` also hides SLURM_CONF, which locates the cluster, and the SBATCH_*
    variables with the defaults of a site.
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
