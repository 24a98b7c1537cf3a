"""How long `pa` takes to start, against `python -c "import click"`.

    python benchmarks/startup.py [--rounds 9] [--workspace DIR]

Every command is started once in a round, and click before it; the ratio of a round is that of the
two. What stands in the table is the median over rounds: of the wall clock, which other work on the
machine disturbs, and of the processor time of the process, which it disturbs less. The target is a
ratio of 3 for `pa --help`; `pa status` reads the settings and the stores, so it loads more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from pa.cli import cli

TARGET = 3.0
BASE = ("-c", "import click")


@dataclass
class Measured:
    """Seconds of the wall clock and of the processor, and their ratios to click's, by round."""

    wall: list[float] = field(default_factory=list)
    wall_ratio: list[float] = field(default_factory=list)
    cpu_ratio: list[float] = field(default_factory=list)


def helps(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """`--help` of a command, of its commands, and of theirs."""
    yield (*words, "--help")
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from helps(inner, (*words, name))


def run(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Start Python with these words; seconds of the wall clock and of the processor."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"python {' '.join(words)}: exit code {child.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workspace", type=Path, help="Where `pa status` runs; default: empty.")
    given = parser.parse_args()
    lines = [*helps(cli), ("status",)]
    measured = {line: Measured() for line in lines}
    clicks = []
    with tempfile.TemporaryDirectory() as empty:
        folder = given.workspace or Path(empty)
        for line in [BASE, *lines]:  # once, so that all files are in memory and compiled
            run(line if line is BASE else ("-m", "pa", *line), folder)
        for _ in range(given.rounds):
            for line, found in measured.items():
                base_wall, base_cpu = run(BASE, folder)
                wall, cpu = run(("-m", "pa", *line), folder)
                clicks.append(base_wall)
                found.wall.append(wall)
                found.wall_ratio.append(wall / base_wall)
                found.cpu_ratio.append(cpu / base_cpu)
    print(f'python -c "import click": {1e3 * statistics.median(clicks):.0f} ms')
    print(f"{'command':<36} {'ms':>6} {'× click':>8} {'× processor time':>17}")
    for line, found in measured.items():
        wall, ratio, cpu = map(statistics.median, (found.wall, found.wall_ratio, found.cpu_ratio))
        print(f"pa {' '.join(line):<33} {1e3 * wall:6.0f} {ratio:8.2f} {cpu:17.2f}")
    worst = statistics.median(measured[("--help",)].wall_ratio)
    verdict = "met" if worst <= TARGET else "MISSED"
    print(f"pa --help: {worst:.2f} × click, target {TARGET:.0f}: {verdict}")


if __name__ == "__main__":
    main()
