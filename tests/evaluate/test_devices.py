"""Devices of an extraction."""

from __future__ import annotations

import pytest

from pa.evaluate.devices import visible_gpus


def test_visible_gpus_respects_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-f00")
    assert visible_gpus() == ["3", "GPU-f00"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpus() == []
