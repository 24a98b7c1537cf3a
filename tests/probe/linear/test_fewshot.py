from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pa.errors import UsageError
from pa.evaluate.result_files import read_result
from pa.probe.linear.fewshot import draw_shots
from pa.probe.linear.recipes import PAPER
from pa.probe.selection import LabelledRows
from tests.support.arrays import MakeStore, blobs
from tests.support.probes import fewshot, train_linear

QUICK = replace(PAPER, epochs=5)


def test_shots_are_stratified_and_from_different_images() -> None:
    generator = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 5)
    targets = generator.integers(0, 3, 200)
    for shots in (1, 5, 20):
        chosen = draw_shots(targets, images, shots, seed=7)
        assert np.bincount(targets[chosen]).tolist() == [shots] * 3
        for index in range(3):
            current = images[chosen[targets[chosen] == index]]
            assert len(set(current)) == len(current)  # each class is on 20 images or more


def test_shots_repeat_an_image_only_after_all_others() -> None:
    images = np.array([0, 0, 0, 0, 1, 2])
    targets = np.zeros(6, dtype=np.int64)
    for seed in range(20):
        assert sorted(images[draw_shots(targets, images, 3, seed)]) == [0, 1, 2]
        assert sorted(images[draw_shots(targets, images, 4, seed)]) == [0, 0, 1, 2]


def test_draws_follow_the_seed_and_are_nested() -> None:
    targets, images = np.arange(60) % 3, np.arange(60)
    draws = [tuple(draw_shots(targets, images, 5, seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert set(draw_shots(targets, images, 2, 0)) < set(draws[0])


def test_run_fewshot(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(90, spread=0.5)
    held, held_labels = blobs(60, spread=0.5, seed=1)
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": held}, held_labels, split="val")
    done = fewshot(
        train, test, shots=(1, 20), draws=3, results=tmp_path, recipe=replace(QUICK, seed=2)
    )
    assert list(done.scores) == [1, 20]
    first, many = done.scores.values()
    assert many.value > first.value
    # Draw 1 again, by hand.
    side, test_side = done.split.train.read("cls"), done.split.test.read("cls")
    places = draw_shots(side.targets, side.images, 20, 3)
    few = LabelledRows(
        side.features[places], side.targets[places], side.images[places], side.rows[places]
    )
    run = train_linear(few, test_side, replace(QUICK, seed=3))
    assert many.each[1].value == (run.predicted == test_side.targets).mean()

    fields = read_result(done.result_path).result.to_json()
    assert fields["task"] == "probe-fewshot"
    assert (fields["protocol"]["shots"], fields["protocol"]["draws"]) == ([1, 20], 3)
    values = [entry["value"] for entry in fields["scores"]["shots=20"]["each"]]
    assert fields["scores"]["shots=20"]["value"] == pytest.approx(np.mean(values))
    assert fields["scores"]["shots=20"]["std"] == pytest.approx(np.std(values, ddof=1))


def test_faults(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(31)
    store = make_store({"cls": features}, labels)
    with pytest.raises(UsageError, match=r"20 shots need as many .* 'c2', 'c1', 'c0' \(the fewest"):
        fewshot(store, shots=(1, 20), draws=2, results=tmp_path, recipe=QUICK)
    for shots, draws in (((0,), 2), ((1,), 0), ((), 2)):
        with pytest.raises(UsageError, match="shots and draws must be 1 or more"):
            fewshot(store, shots=shots, draws=draws, results=tmp_path, recipe=QUICK)
