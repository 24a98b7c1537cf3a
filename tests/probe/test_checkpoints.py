from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from pa.data import files
from pa.errors import StorageError
from pa.probe import checkpoints
from pa.probe.checkpoints import Checkpoint


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 3), float(value)), "epoch": torch.tensor([int(value)])}


def test_saved_state_is_loaded_in_place(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    assert Checkpoint(path, "k").save(state(7), 3)
    tensors = state(0)
    kept = tensors["weight"]
    assert Checkpoint(path, "k").load(tensors) == 3
    assert kept is tensors["weight"]
    assert torch.equal(kept, state(7)["weight"])
    assert [file.name for file in tmp_path.iterdir()] == ["run.state"]


def test_leaf_tensors_that_need_gradients_are_filled(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "s", "k").save(state(7), 3)
    tensors = {"weight": torch.zeros(2, 3, requires_grad=True)}
    assert Checkpoint(tmp_path / "s", "k").load(tensors) == 3
    assert torch.equal(tensors["weight"].detach(), state(7)["weight"])


@pytest.mark.parametrize("case", ["absent", "other run", "torn", "other shape", "more tensors"])
def test_state_of_another_run_leaves_tensors_unchanged(tmp_path: Path, case: str) -> None:
    path, tensors = tmp_path / "s", state(0)
    if case != "absent":
        Checkpoint(path, "another" if case == "other run" else "k").save(state(7), 3)
    if case == "torn":
        path.write_bytes(path.read_bytes()[:-5])
    if case == "other shape":
        tensors["weight"] = torch.zeros(3, 2)
    if case == "more tensors":
        tensors["momentum"] = torch.zeros(1)
    assert Checkpoint(path, "k").load(tensors) == 0
    assert all((tensor == 0).all() for tensor in tensors.values())


def test_saving_takes_a_tenth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    write = files.replacing

    def slowly(path: Path) -> object:
        nonlocal now
        now += 2.0  # a write takes two seconds
        return write(path)

    monkeypatch.setattr(checkpoints, "replacing", slowly)
    checkpoint = Checkpoint(tmp_path / "s", "k")
    saved = []
    for epoch in range(1, 61):
        now += 1.0  # an epoch takes one
        if checkpoint.save(state(epoch), epoch):
            saved.append(epoch)
    assert saved == [1, 21, 41]
    assert checkpoint.save(state(61), 61, last=True)
    assert Checkpoint(tmp_path / "s", "k").load(state(0)) == 61


def test_failed_save_keeps_previous_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    checkpoint = Checkpoint(path, "k")
    checkpoint.save(state(7), 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left while writing"):
        checkpoint.save(state(8), 4, last=True)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    tensors = state(0)
    assert Checkpoint(path, "k").load(tensors) == 3
    assert torch.equal(tensors["weight"], state(7)["weight"])


def test_remove_accepts_missing_state(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "s", "k")
    checkpoint.remove()
    checkpoint.save(state(1), 1)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
