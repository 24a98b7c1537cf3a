"""Scores and heads computed on a GPU are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pa.data.store.reader import Store
from pa.data.store.stream import BlockShuffle
from pa.evaluate.retrieval import evaluate_all_pairs
from pa.probe.attentive.recipes import PAPER as ATTENTIVE
from pa.probe.attentive.tokens import Tokens
from pa.probe.attentive.train import train_heads as train_attentive
from pa.probe.linear.recipes import PAPER
from pa.probe.linear.train import train_stack
from pa.probe.segmentation.batches import TrainingWindows
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.recipes import PAPER as SEGMENTATION
from pa.probe.segmentation.train import HeadSpec
from pa.probe.segmentation.train import train_heads as train_segmentation
from pa.probe.selection import LabelledRows, Side
from pa.probe.training import Candidate
from tests.probe.segmentation import conftest as segmentation
from tests.support.arrays import MakeStore, make_store
from tests.support.probes import train_linear
from tests.support.tokens import token_maps

pytestmark = pytest.mark.gpu

__all__ = ["make_store"]  # a fixture of the probes' tests

maps, load, tree = segmentation.maps, segmentation.load, segmentation.tree
make_windows = segmentation.make_store


def clusters(n: int, seed: int, width: int = 32, classes: int = 4) -> LabelledRows:
    draw = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    centres = np.random.default_rng(99).normal(size=(classes, width))
    features = (centres[targets] + draw.normal(size=(n, width))).astype(np.float32)
    return LabelledRows(features, targets, np.arange(n), np.arange(n))


@pytest.mark.parametrize("include_self", [False, True])
def test_average_precision_equals_the_cpus(include_self: bool, device: str) -> None:
    rows = clusters(1500, 0, 64)
    expected, actual = (
        evaluate_all_pairs(rows.features, rows.targets, include_self=include_self, device=at).ap
        for at in ("cpu", device)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_linear_probe_equals_the_cpus(device: str) -> None:
    train, test = clusters(600, 0), clusters(600, 1)
    expected, actual = (train_linear(train, test, PAPER, device=at) for at in ("cpu", device))
    np.testing.assert_allclose(actual.tensors["weight"], expected.tensors["weight"], atol=1e-4)
    assert (actual.predicted == expected.predicted).mean() > 0.995


def test_sweep_equals_the_cpus(device: str) -> None:
    candidates = [
        Candidate("cls", lr, decay, seed)
        for seed in (0, 1)
        for lr in (0.01, 1.0)
        for decay in (0.0, 1e-3)
    ]
    read = {"cls": (clusters(300, 0), clusters(300, 1))}.__getitem__
    recipe = replace(PAPER, epochs=5, batch=64)
    expected, actual = (train_stack(read, candidates, recipe, device=at) for at in ("cpu", device))
    for item, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(item.tensors["weight"], other.tensors["weight"], atol=1e-4)


def test_attentive_probe_equals_the_cpus(device: str, make_store: MakeStore) -> None:
    tokens, labels = token_maps(90)
    store = make_store({"cls": tokens[:, 0], "patch": tokens[:, 1:]}, labels)
    recipe = replace(
        ATTENTIVE,
        epochs=3,
        batch=16,
        eval_batch=10,
        order=BlockShuffle(seed=1, block_rows=8, buffer_rows=32),
    )

    def at(name: str) -> np.ndarray:
        folder = torch.device(name)
        sides = [
            Tokens(side(store, rows), folder, memory=1e9)
            for rows in (np.arange(60), np.arange(60, 90))
        ]
        candidates = [Candidate("cls+patch", lr, 0.0, seed) for seed, lr in ((0, 0.04), (1, 0.4))]
        return np.stack([head.train_loss for head in train_attentive(*sides, candidates, recipe)])

    np.testing.assert_allclose(at(device), at("cpu"), rtol=1e-3)


def side(store: Store, rows: Sequence[int] | np.ndarray) -> Side:
    targets = np.array([int(label[1:]) for label in store.rows["label"].to_list()])[rows]
    return Side(store, np.asarray(rows), targets, np.asarray(rows), 0, 0)


def test_segmentation_head_equals_the_cpus(
    device: str, make_windows: Callable[..., Store], maps: LabelMaps, tmp_path: Path
) -> None:
    recipe = replace(SEGMENTATION, iterations=12, warmup=3, batch=5, lr=0.02)
    windows = TrainingWindows(
        WindowRows.of(make_windows()), [maps], recipe.representation, recipe.batch, 0
    )
    expected, actual = (
        train_segmentation(windows, [HeadSpec(0, 0.02), HeadSpec(0, 0.002)], recipe, device=at)
        for at in ("cpu", device)
    )
    for item, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(item.losses.cpu(), other.losses.cpu(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(item.weight, other.weight, rtol=1e-2, atol=1e-3)
