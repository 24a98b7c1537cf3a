"""Small photographs in numbers, file systems that are really full or really read-only.

Environment variables set the length of these tests; `make torture` sets them:

    TORTURE_KILLS      workers killed at random moments               (8)
    TORTURE_EVERY      kill before every so-manieth step              (12)
    TORTURE_FLIPS      bits flipped in each kind of file              (40)
    TORTURE_CUTS       offsets at which a shard is cut off            (25)
    TORTURE_SEED       what is drawn                                  (0)
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import noise_image

REPOSITORY = Path(__file__).resolve().parents[2]
USUAL = {"KILLS": 8, "EVERY": 12, "FLIPS": 40, "CUTS": 25, "SEED": 0}


def rounds(name: str) -> int:
    """How many rounds of something, from the environment."""
    return int(os.environ.get(f"TORTURE_{name}", USUAL[name]))


@pytest.fixture
def draw() -> random.Random:
    return random.Random(rounds("SEED"))


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Path]:
    """Make `n` small photographs of which every `bad_every`-th is torn."""

    def make(n: int, bad_every: int = 0) -> Path:
        root = tmp_path / "photos"
        for number in range(n):
            path = root / f"c{number % 4}" / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise_image(number, (48, 40)).save(path)
            if bad_every and number % bad_every == bad_every // 2:
                path.write_bytes(path.read_bytes()[:200])
        return root

    return make


def run_script(module: str, *words: object, timeout: float) -> dict[str, Any]:
    """Run one of this folder's programs in a process of its own; the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.torture.{module}", *map(str, words)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output: dict[str, Any] = json.loads(done.stdout)
    return output


def mount(*words: object) -> None:
    """Mount a file system, or skip the test with the reason."""
    try:
        done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a file system of a size such as "1m"; writes to it fail when it is full."""
    created: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk{len(created)}"
        folder.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
        created.append(folder)
        return folder

    yield make
    for folder in created:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Mount a folder read-only at another path, also for root."""
    created: list[Path] = []

    def make(folder: Path) -> Path:
        target = tmp_path / f"readonly{len(created)}"
        target.mkdir()
        mount("--bind", folder, target)
        created.append(target)
        mount("-o", "remount,bind,ro", target)
        return target

    yield make
    for target in created:
        subprocess.run(["umount", "--lazy", target], check=True)
