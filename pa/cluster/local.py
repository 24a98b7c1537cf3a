"""Run commands as processes of this machine: one per GPU, or several on the CPU."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pa.cluster.slurm import (
    SUCCESS_CODES,
    Steps,
    Words,
    command_line,
    file_list_variable,
    start_command,
    stop,
    write_marker,
)
from pa.data.files import uninterrupted
from pa.progress import Progress

POLL_SECONDS = 0.1  # short against any command, long against the cost of a poll


@dataclass(frozen=True)
class EndedCommand:
    """A command that ended."""

    words: Words
    code: int  # exit code, negative if a signal killed it
    log: Path

    @property
    def succeeded(self) -> bool:
        return self.code in SUCCESS_CODES


def environments(devices: Sequence[str], workers: int) -> list[dict[str, str]]:
    """Return the environment variables of each worker: one GPU, or a share of the cores.

    `devices` are names for CUDA_VISIBLE_DEVICES; without any, the commands run on the CPU.
    OMP_NUM_THREADS is left as it is if the caller has set it.
    """
    if devices:
        return [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(workers)]
    if "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(workers)]
    threads = max(1, (os.cpu_count() or 1) // workers)
    return [{"OMP_NUM_THREADS": str(threads)} for _ in range(workers)]


def run_all(
    jobs: Sequence[Steps],
    workers: Sequence[dict[str, str]],
    folder: Path,
    title: str,
    progress: Progress,
) -> list[EndedCommand]:
    """Run jobs in one process per worker, and return how each of their commands ended.

    `workers` holds the environment variables of each. The commands of a job run one after the other
    in one worker, and the first failure ends the job.
    stdout and stderr go to `folder/<number>-<title>.log`. An interrupt stops all processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = list(enumerate(jobs))
    free = list(workers)  # environments of the workers without a job
    running: list[_Running] = []
    ended: list[EndedCommand] = []
    progress.start(title, sum(len(job.commands) for job in jobs), "commands")
    try:
        while waiting or running:
            while waiting and free:
                number, job = waiting.pop(0)
                log = folder / f"{number}-{title}.log"
                running.append(_Running(job, free.pop(0), log))
                running[-1].start()
            time.sleep(POLL_SECONDS)
            for run in [r for r in running if r.child is not None and r.child.poll() is not None]:
                command = run.finish()
                ended.append(command)
                progress.advance(1)
                if not command.succeeded:
                    line = command_line(command.words)
                    progress.note(f"exit code {command.code}: {line}; {command.log}")
                if command.succeeded and run.position < len(run.job.commands):
                    run.start()
                else:
                    running.remove(run)
                    free.append(run.environment)
    finally:
        stop([run.child for run in running if run.child is not None])
        progress.stop()
    return ended


@dataclass
class _Running:
    """A job in a worker, at one of its commands."""

    job: Steps
    environment: dict[str, str]
    log: Path
    position: int = 0  # of the running command among those of the job
    child: subprocess.Popen[bytes] | None = None  # None before the first command

    def start(self) -> None:
        words = self.job.commands[self.position]
        with self.log.open("ab") as output:
            output.write(f"$ {command_line(words)}\n".encode())
            output.flush()
            with uninterrupted():  # a signal must not arrive before the child is known
                environment = {**self.environment, **file_list_variable(self.job.marker)}
                self.child = start_command(words, environment, output)

    def finish(self) -> EndedCommand:
        assert self.child is not None
        words = self.job.commands[self.position]
        command = EndedCommand(words, self.child.wait(), self.log)
        if command.succeeded and self.job.marker is not None:
            write_marker(self.job.marker, words, command.code)
        self.position += 1
        return command
