"""Commands as processes of this machine, so many at once: one per device, or some on the CPU."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pa.cluster.slurm import (
    ENDED_WELL,
    Steps,
    Words,
    command_line,
    listing,
    start_command,
    stop,
    write_mark,
)
from pa.data.files import uninterrupted
from pa.progress import Progress

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ended:
    """A command that ended: exit code, negative where a signal killed it, and its log."""

    words: Words
    code: int
    log: Path

    @property
    def well(self) -> bool:
        return self.code in ENDED_WELL


def environments(devices: Sequence[str], slots: int) -> list[dict[str, str]]:
    """What tells each of `slots` processes its place: one GPU, or its share of the cores.

    `devices` are names as CUDA_VISIBLE_DEVICES takes them; none means the CPU. OMP_NUM_THREADS is
    left alone where the caller has set it.
    """
    if devices:
        return [{"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} for slot in range(slots)]
    if "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(slots)]
    threads = max(1, (os.cpu_count() or 1) // slots)
    return [{"OMP_NUM_THREADS": str(threads)} for _ in range(slots)]


def run_all(
    jobs: Sequence[Steps],
    places: Sequence[dict[str, str]],
    folder: Path,
    title: str,
    progress: Progress,
) -> list[Ended]:
    """Run jobs in as many processes as there are places; how each of their commands ended.

    The commands of a job follow each other in one place, and the first that fails ends the job.
    stdout and stderr go to `folder/<number>-<title>.log`. An interrupt stops them all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = list(enumerate(jobs))
    free = list(range(len(places)))
    running: list[_Running] = []
    ended: list[Ended] = []
    progress.start(title, sum(len(job.commands) for job in jobs), "commands")
    try:
        while waiting or running:
            while waiting and free:
                number, job = waiting.pop(0)
                log = folder / f"{number}-{title}.log"
                running.append(_Running(job, free.pop(0), log))
                running[-1].start(places)
            time.sleep(POLL_SECONDS)
            for one in [r for r in running if r.child is not None and r.child.poll() is not None]:
                ended.append(one.finish())
                progress.advance(1)
                if not ended[-1].well:
                    code, line = ended[-1].code, command_line(ended[-1].words)
                    progress.note(f"exit code {code}: {line}; {ended[-1].log}")
                if ended[-1].well and one.position < len(one.job.commands):
                    one.start(places)
                else:
                    running.remove(one)
                    free.append(one.slot)
    finally:
        stop([one.child for one in running if one.child is not None])
        progress.stop()
    return ended


@dataclass
class _Running:
    """A job in its place, at one of its commands."""

    job: Steps
    slot: int
    log: Path
    position: int = 0
    child: subprocess.Popen[bytes] | None = None

    @property
    def _mark(self) -> Path | None:
        marks = self.job.marks
        return marks[self.position] if self.position < len(marks) else None

    def start(self, places: Sequence[dict[str, str]]) -> None:
        words = self.job.commands[self.position]
        with self.log.open("ab") as output:
            output.write(f"$ {command_line(words)}\n".encode())
            output.flush()
            with uninterrupted():  # a signal must not come before the child is known
                environment = {**places[self.slot], **listing(self._mark)}
                self.child = start_command(words, environment, output)

    def finish(self) -> Ended:
        assert self.child is not None
        words = self.job.commands[self.position]
        end = Ended(words, self.child.wait(), self.log)
        if end.well and self._mark is not None:
            write_mark(self._mark, words, end.code)
        self.position += 1
        return end
