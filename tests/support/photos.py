"""A workspace with a store of photographs, and ways to damage it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pa.cli import cli
from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour

Run = Callable[..., Result]
SMALL = ExtractOptions(representations=("pooled", "patch"), shard_rows=3, batch_size=4)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with 12 photographs, one of them torn; `features` of their store of 4 shards."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(12):
        noise_image(number).save(root / f"{number:02d}.png")
    (root / "05.png").write_bytes(b"not a picture")
    return tmp_path / "ws"


def encode(workspace: Path, **changes: object) -> Store:
    """Extract the photographs into the workspace."""
    options = replace(SMALL, **changes)  # type: ignore[arg-type]
    images = datasets.load("photos", "folder", workspace.parent / "photos")
    outcome = extract([MeanColour()], images, VIEWS["image"], workspace / "features", options)
    return outcome.reports[0].store


@pytest.fixture
def store(workspace: Path) -> Store:
    return encode(workspace)


@pytest.fixture
def run(workspace: Path) -> Run:
    def call(*words: object) -> Result:
        result = CliRunner().invoke(cli, ["-w", str(workspace), *map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def unfinish(store: Store, *shards: int) -> None:
    """Take shards and the manifest away."""
    (store.path / "manifest.json").unlink()
    for index in shards:
        store.shard_path(store.plan[index]).unlink()


def flip(path: Path, offset: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Callable[[Path], subprocess.Popen[str]]:
    """Hold the lock of a file in another process until its stdin closes."""

    def start(path: Path) -> subprocess.Popen[str]:
        path.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-c", HOLD, str(path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    return start


Hold = Callable[[Path], "subprocess.Popen[str]"]
