"""How long `pa` takes to start, against `python -c "import click"`.

    python benchmarks/startup.py [--rounds 9] [--workspace DIR]

Every command is started once in a round, and click before it. Other work on the machine only ever
adds time, so the table shows the shortest of all rounds: of the wall clock, and of the
processor time of the process, which others disturb less. The target is a ratio of 3 for `pa --help`
and the `--help` of every command; `pa status` reads the settings and the stores, so it loads more.
"""

from __future__ import annotations

import argparse
import os
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
    """Seconds of the wall clock and of the processor, by round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, seconds: tuple[float, float]) -> None:
        self.wall.append(seconds[0])
        self.cpu.append(seconds[1])

    def ratios(self, base: Measured) -> tuple[float, float]:
        return min(self.wall) / min(base.wall), min(self.cpu) / min(base.cpu)


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
    args = parser.parse_args()
    lines = [*helps(cli), ("status",)]
    measured = {line: Measured() for line in lines}
    base = Measured()
    with tempfile.TemporaryDirectory() as empty:
        folder = args.workspace or Path(empty)
        for line in [BASE, *lines]:  # once, so that all files are in memory and compiled
            run(line if line is BASE else ("-m", "pa", *line), folder)
        for _ in range(args.rounds):
            for line, values in measured.items():
                base.add(run(BASE, folder))
                values.add(run(("-m", "pa", *line), folder))
    print(f'python -c "import click": {1e3 * min(base.wall):.0f} ms')
    print(f"{'command':<36} {'ms':>6} {'× click':>8} {'× processor time':>17}")
    for line, values in measured.items():
        ratio, cpu = values.ratios(base)
        print(f"pa {' '.join(line):<33} {1e3 * min(values.wall):6.0f} {ratio:8.2f} {cpu:17.2f}")
    shown = {line: values.ratios(base)[0] for line, values in measured.items() if "--help" in line}
    worst = max(shown, key=lambda line: shown[line])
    verdict = "met" if shown[worst] <= TARGET else "MISSED"
    print(f"pa --help: {shown[('--help',)]:.2f} × click")
    print(f"pa {' '.join(worst)}: {shown[worst]:.2f} ×, the most; target {TARGET:.0f}: {verdict}")


if __name__ == "__main__":
    main()
