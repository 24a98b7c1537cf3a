"""Runs of the probes with the fields of their options as keywords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pa.data.store.reader import Store
from pa.probe.attentive.run import AttentiveOptions, AttentiveResult, run_attentive
from pa.probe.linear.fewshot import run_fewshot
from pa.probe.linear.recipes import PAPER, LinearRecipe
from pa.probe.linear.run import LinearOptions, LinearResult, run_linear
from pa.probe.linear.train import finite_heads, train_stack
from pa.probe.recording import ScoredProbe
from pa.probe.selection import LabelledRows, ProbeStores, SplitOptions
from pa.probe.training import Candidate, TrainedHead
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


def train_linear(
    train: LabelledRows, test: LabelledRows, recipe: LinearRecipe = PAPER, **options: Any
) -> TrainedHead:
    """Train one head on rows in memory; raise where it diverges."""
    candidate = Candidate("features", recipe.lr, recipe.weight_decay, recipe.seed)
    heads = train_stack({"features": (train, test)}.__getitem__, [candidate], recipe, **options)
    return finite_heads(heads, recipe)[0]
