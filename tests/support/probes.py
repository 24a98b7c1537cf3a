"""Runs of the probes with the fields of their options as keywords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pa.data.store.reader import Store
from pa.probe.attentive.run import AttentiveOptions, AttentiveResult, run_attentive
from pa.probe.linear.fewshot import run_fewshot
from pa.probe.linear.run import LinearOptions, LinearResult, run_linear
from pa.probe.recording import ScoredProbe
from pa.probe.selection import ProbeStores, SplitOptions
from pa.progress import Progress

ALL = SplitOptions()


def linear(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    split: SplitOptions = ALL,
    progress: Progress | None = None,
    **options: Any,
) -> LinearResult:
    stores = ProbeStores(train, test, split)
    return run_linear(stores, LinearOptions(**options), results=results, progress=progress)


def attentive(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    split: SplitOptions = ALL,
    **options: Any,
) -> AttentiveResult:
    return run_attentive(
        ProbeStores(train, test, split), AttentiveOptions(**options), results=results
    )


def fewshot(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    shots: tuple[int, ...],
    draws: int,
    **options: Any,
) -> ScoredProbe:
    stores = ProbeStores(train, test)
    return run_fewshot(stores, LinearOptions(**options), shots=shots, draws=draws, results=results)
