from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pa.errors import UsageError
from pa.probe.linear import train
from pa.probe.linear.recipes import LINEAR_PROTOCOLS, PAPER, LinearRecipe
from pa.probe.linear.stack import epoch_order, initial_weight
from pa.probe.linear.train import Grid, finite_heads, train_stack
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.selection import LabelledRows
from pa.probe.training import Candidate
from tests.support.arrays import Floats, blobs

QUICK = replace(PAPER, epochs=8, batch=64)


def rows(features: Floats, labels: list[str]) -> LabelledRows:
    number = np.arange(len(labels))
    targets = np.array([int(label[1:]) for label in labels])
    return LabelledRows(features, targets, number, number)


def sides(representation: str) -> tuple[LabelledRows, LabelledRows]:
    """Two different representations of the same clouds."""
    seed = {"cls": 0, "pooled": 10}[representation]
    train, test = (blobs(n, spread=0.6, seed=seed + i) for i, n in enumerate((200, 90)))
    return rows(*train), rows(*test)


GRID = Grid(("cls", "pooled"), (0.04, 0.4), (0.0, 0.01), (0, 1))


@pytest.mark.parametrize("protocol", ["paper", "released", "imagenet-cae"])
def test_sweep_heads_equal_heads_trained_alone(protocol: str) -> None:
    recipe = replace(LINEAR_PROTOCOLS[protocol], epochs=8, batch=64, warmup=0)
    candidates = GRID.candidates()
    together = train_stack(sides, candidates, recipe)
    assert [head.candidate for head in together] == candidates
    assert len(candidates) == 16
    for head in together:
        alone = train_stack(sides, [head.candidate], recipe)[0]
        np.testing.assert_allclose(
            head.tensors["weight"].numpy(), alone.tensors["weight"].numpy(), atol=1e-5, rtol=0
        )
        np.testing.assert_allclose(
            head.tensors["bias"].numpy(), alone.tensors["bias"].numpy(), atol=1e-5, rtol=0
        )
        np.testing.assert_allclose(head.train_loss, alone.train_loss, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(head.predicted, alone.predicted)
        assert head.epoch == alone.epoch


def test_stacks_that_do_not_fit_are_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = Grid(("cls",), (0.04, 0.1, 0.4), (0.0,)).candidates()
    whole = train_stack(sides, candidates, QUICK)
    monkeypatch.setattr(train, "LOGITS", 2 * 64 * 3)  # two heads of 64 rows and 3 classes
    parted = train_stack(sides, candidates, QUICK)
    for item, other in zip(whole, parted, strict=True):
        np.testing.assert_allclose(
            item.tensors["weight"].numpy(), other.tensors["weight"].numpy(), atol=1e-5, rtol=0
        )
        np.testing.assert_array_equal(item.predicted, other.predicted)


def by_torch(recipe: LinearRecipe, lr: float, seed: int) -> tuple[list[float], nn.Module]:
    """The recipe as a plain torch loop: test accuracy after each epoch, and the layer."""
    train, test = sides("cls")
    x, y = torch.from_numpy(train.features), torch.from_numpy(train.targets)
    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.copy_(initial_weight(seed, 5, 3, 0.01))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
    accuracy = []
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + np.cos(np.pi * epoch / recipe.epochs))
        for batch in epoch_order(seed, epoch, len(x)).split(recipe.batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[batch]), y[batch]).backward()
            optimizer.step()
        predicted = layer(torch.from_numpy(test.features)).argmax(1).numpy()
        accuracy.append(float((predicted == test.targets).mean()))
    return accuracy, layer


def test_best_epoch_and_last_epoch_are_reported() -> None:
    recipe = replace(QUICK, reported=BEST_ON_TEST, epochs=20)
    candidates = Grid(("cls",), (0.01, 4.0), (0.0,), (0, 3)).candidates()
    differing = 0
    for head in train_stack(sides, candidates, recipe):
        accuracy, layer = by_torch(recipe, head.candidate.lr, head.candidate.seed)
        assert head.test_accuracy == pytest.approx(accuracy)
        assert head.epoch == int(np.argmax(accuracy)) + 1
        targets = sides("cls")[1].targets
        assert (head.predicted == targets).mean() == pytest.approx(max(accuracy))
        assert (head.last_predicted == targets).mean() == pytest.approx(accuracy[-1])
        # The head that is kept is the one that was best.
        logits = (
            sides("cls")[1].features @ head.tensors["weight"].numpy().T
            + head.tensors["bias"].numpy()
        )
        np.testing.assert_array_equal(logits.argmax(1), head.predicted)
        differing += head.epoch != recipe.epochs
        last = layer.weight.detach().numpy()
        assert np.allclose(head.tensors["weight"].numpy(), last, atol=1e-4) == (
            head.epoch == recipe.epochs
        )
    assert differing


def test_batch_statistics_at_test() -> None:
    recipe = replace(LINEAR_PROTOCOLS["imagenet-cae"], epochs=5, batch=64, warmup=1)
    candidate = [Candidate("cls", 0.1, 0.0, 0)]
    running = train_stack(sides, candidate, recipe)[0]
    by_batch = train_stack(sides, candidate, replace(recipe, bn_eval="batch"))[0]
    np.testing.assert_array_equal(
        running.tensors["weight"].numpy(), by_batch.tensors["weight"].numpy()
    )
    x = sides("cls")[1].features.astype(np.float64)  # 90 rows: one batch of 256
    normed = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
    np.testing.assert_array_equal(
        (normed @ by_batch.tensors["weight"].numpy().T + by_batch.tensors["bias"].numpy()).argmax(
            1
        ),
        by_batch.predicted,
    )
    mean, var = running.tensors["bn_mean"].numpy(), running.tensors["bn_var"].numpy()
    normed = (x.astype(np.float32) - mean) / np.sqrt(var + np.float32(1e-6))
    np.testing.assert_array_equal(
        (normed @ running.tensors["weight"].numpy().T + running.tensors["bias"].numpy()).argmax(1),
        running.predicted,
    )


def test_unwatched_heads_are_scored_at_the_end_alone() -> None:
    candidate = [Candidate("cls", 0.4, 0.0, 0)]
    watched = train_stack(sides, candidate, QUICK)[0]
    unwatched = train_stack(sides, candidate, QUICK, monitored=False)[0]
    np.testing.assert_array_equal(watched.predicted, unwatched.predicted)
    assert np.isnan(unwatched.test_accuracy).all()
    assert unwatched.epoch == 8
    assert unwatched.test_loss == pytest.approx(watched.test_loss)


def test_test_loss_is_torchs_cross_entropy() -> None:
    head = train_stack(sides, [Candidate("cls", 0.4, 0.0, 0)], QUICK)[0]
    test = sides("cls")[1]
    logits = torch.from_numpy(
        test.features @ head.tensors["weight"].numpy().T + head.tensors["bias"].numpy()
    )
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(test.targets))
    assert head.test_loss == pytest.approx(expected.item(), rel=1e-5)


def test_half_precision_features_are_computed_in_single() -> None:
    def half(representation: str) -> tuple[LabelledRows, LabelledRows]:
        train, test = sides(representation)
        return tuple(replace(s, features=s.features.astype(np.float16)) for s in (train, test))  # type: ignore[return-value]

    def widened(representation: str) -> tuple[LabelledRows, LabelledRows]:
        return tuple(  # type: ignore[return-value]
            replace(s, features=s.features.astype(np.float32)) for s in half(representation)
        )

    candidate = [Candidate("cls", 0.4, 0.0, 0)]
    first, second = (train_stack(read, candidate, QUICK)[0] for read in (half, widened))
    np.testing.assert_array_equal(first.tensors["weight"].numpy(), second.tensors["weight"].numpy())


def test_representations_are_read_once() -> None:
    asked: list[str] = []

    def read(representation: str) -> tuple[LabelledRows, LabelledRows]:
        asked.append(representation)
        return sides(representation)

    train_stack(read, GRID.candidates(), QUICK, monitored=False)
    assert asked == ["cls", "pooled"]


def test_diverged_head_is_recorded_and_others_continue() -> None:
    train, test = sides("cls")
    big = {
        "cls": (
            replace(train, features=100 * train.features),
            replace(test, features=100 * test.features),
        )
    }.__getitem__
    heads = train_stack(big, Grid(("cls",), (0.4, 1e38), (0.0,)).candidates(), QUICK)
    assert [head.diverged for head in heads] == [None, 1]
    assert finite_heads(heads, QUICK) == [heads[0]]
    with pytest.raises(
        UsageError, match=r"diverged: with learning rate 1e\+38 the loss is not"
    ) as e:
        finite_heads(heads[1:], QUICK)
    assert "in epoch 1 of 8. Lower the learning rate with --lr" in str(e.value)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"lr": ()}, "lr"),
        ({"lr": (0.1, 0.1)}, "lr"),
        ({"representation": ("cls", "cls")}, "representation"),
        ({"seeds": ()}, "seeds"),
    ],
)
def test_sweep_needs_different_values(changed: dict[str, Any], name: str) -> None:
    fields: dict[str, Any] = {"representation": ("cls",), "lr": (0.1,), "weight_decay": (0.0,)}
    with pytest.raises(UsageError, match=f"one or more different values of {name}"):
        Grid(**{**fields, **changed})


def test_candidate_order_keeps_groups_together() -> None:
    groups = [(c.representation, c.seed) for c in GRID.candidates()]
    changes = sum(a != b for a, b in pairwise(groups))
    assert changes == len(set(groups)) - 1
