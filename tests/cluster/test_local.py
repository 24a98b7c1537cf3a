"""Commands as processes of this machine."""

from __future__ import annotations

import os

import pytest

from pa.cluster.local import environments


def test_environments_assign_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = environments(["2", "GPU-f00"], 3)
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in gpus] == ["2", "GPU-f00", "2"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert environments([], 3) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environments([], 2) == [{}, {}]
