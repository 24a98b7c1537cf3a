"""Run commands in this process, in a workspace of small photographs."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from pa import cli
from pa.data.store.checksums import with_checksum
from pa.workspace import RegionSelector, Workspace

Tree = Callable[..., Path]


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:  # type: ignore[type-arg]
        return json.loads(self.out)  # type: ignore[no-any-return]


Run = Callable[..., Outcome]


@pytest.fixture
def pa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `pa …` in this process."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pa", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeded random weights of two tiny real networks, one with a class token, one without."""
    import torch
    from safetensors.torch import save_file

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    folder = tmp_path_factory.mktemp("weights")
    result = {}
    for name in ("test_vit", "test_efficientnet"):
        torch.manual_seed(0)
        result[name] = folder / f"{name}.safetensors"
        save_file(timm.create_model(name).state_dict(), result[name])
    return result


@pytest.fixture
def workspace(
    image_tree: Tree, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Create a configured workspace with 12 small photographs of 3 classes, and enter it."""
    root = image_tree()
    target = tmp_path / "work"
    target.mkdir()
    (target / "pa.toml").write_text(
        f"""
encoder = "timm/test_vit"
device = "cpu"
[datasets.photos]
kind = "folder"
root = "{root}"
[encoders."timm/test_vit"]
checkpoint = "{weights["test_vit"]}"
[encoders."timm/test_efficientnet"]
checkpoint = "{weights["test_efficientnet"]}"
"""
    )
    monkeypatch.chdir(target)
    return target


@pytest.fixture(scope="session")
def extracted_once(
    tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Path]
) -> Callable[[Path], None]:
    """Do the extraction of `workspace` once; a call puts a copy of its features into a folder.

    The copies know the photographs by the name they have in every test's own folder, so the
    fingerprint is the same: it covers relative paths and sizes.
    """
    created: list[Path] = []

    def copy_into(target: Path) -> None:
        if not created:
            work = Workspace(target)
            work.extract(work.encoders(), *work.regions(RegionSelector()))
            keep = tmp_path_factory.mktemp("extracted") / "features"
            shutil.copytree(target / "features", keep)
            created.append(keep)
            return
        shutil.copytree(created[0], target / "features")
        for spec in (target / "features").rglob("spec.json"):
            fields = json.loads(spec.read_text())
            fields["source"]["root"] = str(target.parent / "photos")
            spec.write_text(json.dumps(with_checksum(fields)))

    return copy_into


@pytest.fixture
def extracted(workspace: Path, extracted_once: Callable[[Path], None]) -> Path:
    """The workspace with the windows of all photographs encoded."""
    extracted_once(workspace)
    return workspace


# -- the user's card --------------------------------------------------------------------------


def parse_words(words: Sequence[str]) -> None:
    """Read the words after `pa` as the command line does."""
    context = cli.cli.make_context("pa", list(words))
    command: click.Command = cli.cli
    while isinstance(command, click.Group):
        name, actual, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert actual is not None
        command, context = actual, actual.make_context(name, rest, parent=context)
