"""Shared fixtures: real data next to the repository, small images, stores with known features."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.images import noise_image
from tests.support.report import Runs

pytest_plugins = ["tests.support.commands", "tests.support.stores", "tests.support.study"]

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
ID_LENGTH = 40  # characters of one parameter: an id stays readable in a line of the terminal


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument and shorten text, so that ids are short and the same in every
    process; pytest numbers those that are equal."""
    if isinstance(val, bytes):
        return argname
    if isinstance(val, str) and (len(val) > ID_LENGTH or not val.isprintable()):
        return re.sub(r"\W+", "-", val).strip("-")[:ID_LENGTH] or argname
    return None


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and so their
    children; the tests of interrupts need it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real data, weights and fixtures next to the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder of real data at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("PA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def image_tree(tmp_path: Path) -> Callable[..., Path]:
    """Make `root/<label>/<n>.png` with `per_label` images of each label."""

    def make(labels: int = 3, per_label: int = 4, name: str = "photos") -> Path:
        root = tmp_path / name
        for label in range(labels):
            folder = root / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(per_label):
                noise_image(100 * label + number).save(folder / f"{number}.png")
        return root

    return make


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """An empty workspace to write results into."""
    root = tmp_path / "work"
    root.mkdir()
    return Runs(root)
