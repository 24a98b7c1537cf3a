from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pa.errors import UsageError
from pa.probe.sgd import Heads, Schedule, epoch_order, fit, initial_weight
from pa.progress import Silent

from .conftest import blobs

SCHEDULE = Schedule(epochs=12, batch=32, momentum=0.9, seed=5)


def data(n: int = 100, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    features, labels = blobs(n, spread=spread)
    return torch.from_numpy(features), torch.tensor([int(label[1:]) for label in labels])


def heads(seeds: list[int], lr: list[float], weight_decay: list[float]) -> Heads:
    weights = [initial_weight(seed, 5, 3, 0.01).T for seed in seeds]
    return Heads(
        torch.stack(weights, 1),
        torch.zeros(len(lr), 3),
        torch.tensor(lr),
        torch.tensor(weight_decay),
    )


def test_factor_is_a_cosine_over_epochs() -> None:
    schedule = Schedule(epochs=90, batch=1024, momentum=0.9, seed=0)
    assert schedule.factor(0) == 1.0
    assert schedule.factor(30) == pytest.approx(0.75)
    assert schedule.factor(45) == pytest.approx(0.5)
    assert schedule.factor(89) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_equals_a_plain_torch_loop(weight_decay: float) -> None:
    features, targets = data()
    ours = heads([3], [0.4], [weight_decay])
    losses = fit(features, targets, ours, SCHEDULE, Silent())

    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.copy_(initial_weight(3, 5, 3, 0.01))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.4, momentum=0.9, weight_decay=weight_decay)
    cosine = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 12))
    )
    for epoch in range(12):
        total = 0.0
        for rows in epoch_order(5, epoch, 100).split(32):
            loss = nn.functional.cross_entropy(layer(features[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        cosine.step()
        assert losses[epoch, 0].item() == pytest.approx(total / 100, abs=1e-6)
    torch.testing.assert_close(ours.weight[:, 0].T, layer.weight.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.bias[0], layer.bias.detach(), atol=1e-6, rtol=0)


def test_each_head_of_a_stack_ends_where_it_does_alone() -> None:
    features, targets = data()
    settings = [(0, 0.4, 0.0), (1, 0.04, 0.0), (1, 0.4, 0.01)]
    stack = heads(*map(list, zip(*settings, strict=True)))  # type: ignore[arg-type]
    losses = fit(features, targets, stack, SCHEDULE, Silent())
    for place, (seed, lr, weight_decay) in enumerate(settings):
        alone = heads([seed], [lr], [weight_decay])
        loss = fit(features, targets, alone, SCHEDULE, Silent())
        torch.testing.assert_close(stack.weight[:, place], alone.weight[:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(losses[:, place], loss[:, 0], atol=1e-5, rtol=0)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    state = torch.random.get_rng_state()
    orders = [tuple(epoch_order(*of, 50).tolist()) for of in ((0, 0), (0, 1), (1, 0))]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[1] == tuple(epoch_order(0, 1, 50).tolist())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_initial_weight_has_the_spread_asked_for() -> None:
    weight = initial_weight(0, 768, 100, 0.01)
    assert weight.shape == (100, 768)
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert torch.equal(weight, initial_weight(0, 768, 100, 0.01))
    assert not torch.equal(weight, initial_weight(1, 768, 100, 0.01))


def test_divergence_names_the_rate_that_did_it() -> None:
    features, targets = data()
    diverging = heads([0, 0], [0.4, 1e38], [0.0, 0.0])
    with pytest.raises(
        UsageError, match=r"learning rate 1e\+38 the loss is not finite in epoch 1 of 12"
    ):
        fit(features * 100, targets, diverging, SCHEDULE, Silent())
