from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.probe.linear.recipes import PAPER
from pa.probe.linear.train import Grid, train_stack
from pa.probe.selection import Split, SplitOptions, split_rows
from pa.probe.training import Candidate, TrainedHead
from pa.probe.validation import (
    Choice,
    ProbeOptions,
    ValidationSplit,
    choose,
    validation_split,
)
from tests.support.arrays import MakeStore, blobs

QUICK = replace(PAPER, epochs=6, batch=64)


def store_of(make_store: MakeStore, split: str, seed: int, n: int = 120) -> Store:
    """Two rows per image; `cls` separates the classes, `pooled` is noise."""
    features, labels = blobs(n, spread=0.5, seed=seed)
    noise = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    images = (np.arange(n) // 2).tolist()
    return make_store({"cls": features, "pooled": noise}, labels, images, split=split)


@pytest.fixture
def split(make_store: MakeStore) -> Split:
    return split_rows(
        store_of(make_store, "train", 0), store_of(make_store, "val", 1), SplitOptions()
    )


def chosen(validation: ValidationSplit, grid: Grid) -> Choice:
    heads = train_stack(validation.read, grid.candidates(), QUICK, monitored=False)
    return choose(validation, heads, QUICK)


def options(seed: int = 0, **changes: Any) -> ProbeOptions:
    return ProbeOptions(recipe=replace(QUICK, seed=seed), **{"select_fraction": 0.25, **changes})


def test_held_out_rows_are_whole_training_images(split: Split) -> None:
    validation = validation_split(split, options())
    assert validation.fit.store is validation.score.store is split.train.store
    assert not set(validation.fit.images) & set(validation.score.images)
    assert sorted([*validation.fit.rows, *validation.score.rows]) == split.train.rows.tolist()
    assert np.bincount(validation.score.targets).min() > 0
    assert validation.to_json()["rule"] == "held-out part of train"
    other = validation_split(split, options(1))
    assert other.score.rows.tolist() != validation.score.rows.tolist()


def test_best_mean_over_seeds_is_selected(split: Split) -> None:
    validation = validation_split(split, options())
    grid = Grid(("cls", "pooled"), (0.001, 0.4), (0.0, 0.1), (0, 1, 2))
    done = chosen(validation, grid)
    assert len(done.sweep) == 24
    # Each cell again, alone, by hand.
    means = {}
    for representation in grid.representation:
        for lr in grid.lr:
            for decay in grid.weight_decay:
                heads = [
                    train_stack(
                        validation.read,
                        [Candidate(representation, lr, decay, seed)],
                        QUICK,
                        monitored=False,
                    )[0]
                    for seed in grid.seeds
                ]
                right = [(head.predicted == validation.score.targets).mean() for head in heads]
                loss = np.mean([head.test_loss for head in heads])
                means[representation, lr, decay] = (np.mean(right), -loss)
    best = max(means, key=means.__getitem__)
    assert tuple(done.setting.values()) == best
    assert best[0] == "cls"
    first = done.settings().row(0, named=True)
    assert first["accuracy"] == pytest.approx(means[best][0])
    flagged = done.sweep.filter(pl.col("chosen"))
    assert len(flagged) == 3
    assert set(flagged["representation"]) == {"cls"}


def test_selection_ignores_test_rows(make_store: MakeStore, split: Split) -> None:
    grid = Grid(("cls",), (0.01, 0.4), (0.0,))
    other = split_rows(split.train.store, store_of(make_store, "other", 9, 60), SplitOptions())
    sweep = [chosen(validation_split(of, options()), grid).sweep for of in (split, other)]
    assert sweep[0].equals(sweep[1])


def test_selection_uses_select_split(make_store: MakeStore, split: Split) -> None:
    dev = store_of(make_store, "dev", 2, 60)
    validation = validation_split(split, options(select_split=dev))
    assert validation.rule == "split dev"
    assert validation.fit is split.train
    assert validation.score.store is dev
    assert validation.to_json()["store"] == dev.title
    assert len(chosen(validation, Grid(("cls",), (0.4,), (0.0,))).sweep) == 1


def test_split_cannot_select(split: Split) -> None:
    with pytest.raises(UsageError, match=r"120 rows of toy/val/.* are test rows too") as caught:
        validation_split(split, options(select_split=split.test.store))
    assert "leave --select-split out" in str(caught.value)


def test_diverged_candidate_is_recorded_and_not_selected(split: Split) -> None:
    validation = validation_split(split, options())
    done = chosen(validation, Grid(("cls",), (1e39, 0.4), (0.0,), (0, 1)))
    assert done.setting["lr"] == 0.4
    lost = done.sweep.filter(pl.col("lr") == 1e39)
    assert lost["diverged"].to_list() == [1, 1]
    assert lost["accuracy"].null_count() == 2
    assert done.settings()["lr"].to_list() == [0.4, 1e39]
    with pytest.raises(UsageError, match="every setting of the sweep diverged"):
        chosen(validation, Grid(("cls",), (1e39,), (0.0,)))


def test_too_few_images_for_selection_are_refused(make_store: MakeStore) -> None:
    features, _ = blobs(12)
    train = make_store({"cls": features}, ["a"] * 11 + ["b"])
    test = make_store({"cls": features}, ["a"] * 11 + ["b"], split="val")
    split = split_rows(train, test, SplitOptions())
    with pytest.raises(UsageError, match="cannot hold images out for validation: classes") as e:
        validation_split(split, options(select_fraction=0.2))
    assert "--select-split NAME" in str(e.value)
    with pytest.raises(UsageError, match=r"fraction must be between 0 and 1, not 1\.5"):
        validation_split(split, options(select_fraction=1.5))


@pytest.mark.parametrize(
    ("diverged", "right", "loss", "best"),
    [
        ([0, 0, 0, 0], [5, 7, 6, 6], [1, 1, 2, 2], 0.1),  # equal means: the lower loss
        ([0, 0, 0, 0], [5, 7, 6, 7], [1, 1, 2, 2], 0.2),  # the better mean
        ([0, 3, 0, 0], [9, 9, 1, 1], [1, 1, 2, 2], 0.2),  # a seed of the other diverged
        ([0, 3, 2, 0], [9, 9, 1, 1], [1, 1, 2, 2], None),
    ],
)
def test_selection_prefers_the_best_mean(
    split: Split, diverged: list[int], right: list[int], loss: list[int], best: float | None
) -> None:
    validation = validation_split(split, options())
    targets, curve = validation.score.targets, np.zeros(1, np.float32)
    candidates = [Candidate("cls", lr, 0.0, seed) for lr in (0.1, 0.2) for seed in (0, 1)]
    heads = []
    for candidate, epoch, n, value in zip(candidates, diverged, right, loss, strict=True):
        predicted = np.where(np.arange(len(targets)) < n, targets, -1)
        tensors = {"weight": torch.zeros(2, 2)}
        heads.append(
            TrainedHead(
                candidate, tensors, 1, predicted, predicted, value, curve, curve, curve,
                epoch or None,
            )
        )  # fmt: skip
    if best is None:
        with pytest.raises(UsageError, match="every setting of the sweep diverged"):
            choose(validation, heads, QUICK)
    else:
        assert choose(validation, heads, QUICK).setting["lr"] == best
