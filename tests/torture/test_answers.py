"""One flipped bit in any file of a workspace: no command answers otherwise as if nothing were wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.parts import MakeParts, make_parts, workspace
from tests.torture.answers import READERS
from tests.torture.conftest import REPOSITORY, rounds, run_script

__all__ = ["make_parts", "workspace"]

WEIGHTS = """
from pa.extract.torchvision_ops import ensure
ensure()
import timm, torch
from safetensors.torch import save_file
torch.manual_seed(0)
save_file(timm.create_model("test_vit", pretrained=False).state_dict(), "weights.safetensors")
"""
# As if each run had been killed before it removed its state.
COMMAND = """
import pa.probe.checkpoints as checkpoints
checkpoints.Checkpoint.remove = lambda self: None
from pa.cli import main
main()
"""
EXTRACT = ("extract", "--encoder", "timm/test_vit", "--checkpoint", "weights.safetensors")
PHOTOS = ("--dataset", "folder", "--root", "photos", "--view", "image", "--shard-rows", "8")


@pytest.fixture
def pristine(photographs: Callable[..., Path], make_parts: MakeParts, workspace: Path) -> Path:
    """A workspace with every kind of file: two stores, indexes, results, a head and a state."""
    make_parts("dino")
    folder = workspace / "pristine"
    folder.mkdir()
    photographs(24).rename(folder / "photos")
    (workspace / "features").rename(folder / "features")
    (folder / "pa.toml").write_text('device = "cpu"\n')

    def call(code: str, *words: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, *words]
        subprocess.run(command, cwd=folder, env=env, check=True, timeout=300)

    call(WEIGHTS)
    call(COMMAND, *EXTRACT, *PHOTOS, "--features", "cls,pooled,patch")
    for name in ("search", "search by image", "retrieval", "linear", "knn", "attentive"):
        call(COMMAND, *READERS[name])
    return folder


@pytest.mark.timeout(7200)
def test_flipped_bit_never_changes_an_answer(pristine: Path) -> None:
    flips = rounds("FLIPS")
    output = run_script("answers", pristine, flips, rounds("SEED"), timeout=7200)
    print(json.dumps(output, indent=1, ensure_ascii=False))
    assert output["cases"] == []
    assert output["hung"] + output["crashed"] == 0
    assert output["found"] > flips / 8
