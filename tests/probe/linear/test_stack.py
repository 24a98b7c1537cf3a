from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.stack import (
    LinearStack,
    Norm,
    epoch_batches,
    epoch_order,
    fit,
    initial_weight,
)
from pa.progress import Silent
from tests.support.arrays import blobs

RECIPE = LinearRecipe(epochs=12, batch=32, momentum=0.9, seed=5)


def data(n: int = 100, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    features, labels = blobs(n, spread=spread)
    return torch.from_numpy(features), torch.tensor([int(label[1:]) for label in labels])


def heads(seeds: list[int], lr: list[float], weight_decay: list[float]) -> LinearStack:
    weights = [initial_weight(seed, 5, 3, 0.01) for seed in seeds]
    return LinearStack(
        torch.stack(weights, 1),
        torch.zeros(3, len(lr)),
        torch.tensor(lr),
        torch.tensor(weight_decay),
    )


def test_factor_is_a_cosine_over_epochs() -> None:
    recipe = LinearRecipe(epochs=90, batch=1024, momentum=0.9, seed=0)
    assert recipe.factor(0) == 1.0
    assert recipe.factor(30) == pytest.approx(0.75)
    assert recipe.factor(45) == pytest.approx(0.5)
    assert recipe.factor(89) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_equals_a_plain_torch_loop(weight_decay: float) -> None:
    features, targets = data()
    ours = heads([3], [0.4], [weight_decay])
    history = fit(features, targets, ours, RECIPE, Silent())

    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.copy_(initial_weight(3, 5, 3, 0.01))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.4, momentum=0.9, weight_decay=weight_decay)
    cosine = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 12))
    )
    for epoch in range(12):
        total, right = 0.0, 0
        for rows in epoch_order(5, epoch, 100).split(32):
            logits = layer(features[rows])
            loss = nn.functional.cross_entropy(logits, targets[rows])
            right += int((logits.argmax(1) == targets[rows]).sum())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        cosine.step()
        assert history.loss[epoch, 0].item() == pytest.approx(total / 100, abs=1e-6)
        assert history.accuracy[epoch, 0].item() == pytest.approx(right / 100)
    torch.testing.assert_close(ours.weight[:, 0], layer.weight.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.bias[:, 0], layer.bias.detach(), atol=1e-6, rtol=0)


def test_stacked_heads_equal_heads_trained_alone() -> None:
    features, targets = data()
    settings = [(0, 0.4, 0.0), (1, 0.04, 0.0), (1, 0.4, 0.01)]
    stack = heads(*map(list, zip(*settings, strict=True)))  # type: ignore[arg-type]
    losses = fit(features, targets, stack, RECIPE, Silent()).loss
    for index, (seed, lr, weight_decay) in enumerate(settings):
        alone = heads([seed], [lr], [weight_decay])
        loss = fit(features, targets, alone, RECIPE, Silent()).loss
        torch.testing.assert_close(stack.weight[:, index], alone.weight[:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(losses[:, index], loss[:, 0], atol=1e-5, rtol=0)


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


def test_diverged_head_leaves_others_unchanged() -> None:
    features, targets = data()
    # float32 ends at 3.4e38: the second head's first step is beyond it.
    stack = heads([0, 0], [0.4, 1e38], [0.0, 0.0])
    history = fit(features * 100, targets, stack, RECIPE, Silent())
    alone = heads([0], [0.4], [0.0])
    fit(features * 100, targets, alone, RECIPE, Silent())
    assert history.diverged.tolist() == [0, 1]
    assert not stack.weight[:, 1].any()
    assert history.loss[1:, 1].isnan().all()
    assert history.loss[:, 0].isfinite().all()
    torch.testing.assert_close(stack.weight[:, 0], alone.weight[:, 0], rtol=1e-5, atol=1e-5)


# -- warm-up, LARS, BatchNorm: the ImageNet recipe -------------------------------------------------


def test_warm_up_then_cosine_by_iteration() -> None:
    recipe = LinearRecipe(epochs=90, batch=4, momentum=0.9, seed=0, warmup=10, cosine="iteration")
    factors = [recipe.factor(at) for at in (0, 2.5, 5, 10, 50, 90)]
    assert factors == pytest.approx([0, 0.25, 0.5, 1, 0.5, 0])
    assert recipe.factor(30.5) == pytest.approx(0.5 * (1 + math.cos(math.pi * 20.5 / 80)))


def test_schedule_by_epoch_uses_rate_of_epoch_start() -> None:
    recipe = LinearRecipe(epochs=90, batch=4, momentum=0.9, seed=0)
    assert recipe.factor(30.9) == recipe.factor(30)


def test_smaller_last_batch_is_dropped_if_recipe_says_so() -> None:
    kept = LinearRecipe(epochs=1, batch=30, momentum=0, seed=0)
    dropped = LinearRecipe(epochs=1, batch=30, momentum=0, seed=0, drop_last=True)
    assert [len(rows) for rows in epoch_batches(kept, 0, 70)] == [30, 30, 10]
    assert [len(rows) for rows in epoch_batches(dropped, 0, 70)] == [30, 30]
    assert [len(rows) for rows in epoch_batches(dropped, 0, 20)] == [20]  # never nothing


def lars_by_formula(
    parameter: Tensor, gradient: Tensor, buffer: Tensor, lr: float, weight_decay: float
) -> None:
    """MoCo v3's LARS, one parameter: no ratio and no decay below two dimensions."""
    if parameter.ndim > 1:
        gradient = gradient + weight_decay * parameter
        norms = parameter.square().sum().sqrt(), gradient.square().sum().sqrt()
        if norms[0] > 0 and norms[1] > 0:
            gradient = gradient * (0.001 * norms[0] / norms[1])
    buffer.copy_(0.9 * buffer + gradient)
    parameter -= lr * buffer


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_lars_and_batch_norm_equal_torchs_layer_and_the_formula(weight_decay: float) -> None:
    features, targets = data()
    recipe = LinearRecipe(
        epochs=6,
        batch=32,
        momentum=0.9,
        seed=5,
        warmup=2,
        cosine="iteration",
        optimizer="lars",
    )
    ours = heads([3, 4], [6.4, 60.0], [weight_decay, 0.5])
    ours.norm = Norm(torch.zeros(5), torch.ones(5), 1e-6)
    fit(features, targets, ours, recipe, Silent())

    norm = nn.BatchNorm1d(5, affine=False, eps=1e-6)
    weight, bias = initial_weight(3, 5, 3, 0.01), torch.zeros(3)
    buffers = torch.zeros(3, 5), torch.zeros(3)
    for epoch in range(6):
        batches = epoch_order(5, epoch, 100).split(32)
        for step, rows in enumerate(batches):
            lr = 6.4 * recipe.factor(epoch + step / len(batches))
            weight.requires_grad_(), bias.requires_grad_()
            logits = norm(features[rows]) @ weight.T + bias
            gradients = torch.autograd.grad(
                nn.functional.cross_entropy(logits, targets[rows]), (weight, bias)
            )
            weight, bias = weight.detach(), bias.detach()
            for parameter, gradient, buffer in zip((weight, bias), gradients, buffers, strict=True):
                lars_by_formula(parameter, gradient, buffer, lr, weight_decay)
    torch.testing.assert_close(ours.weight[:, 0], weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.bias[:, 0], bias, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.norm.mean, norm.running_mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.norm.var, norm.running_var, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.norm(features), norm.eval()(features), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        ours.norm(features, by_batch=True), norm.train()(features), atol=1e-5, rtol=0
    )


def test_batch_of_one_row_keeps_running_statistics_finite() -> None:
    norm = Norm(torch.zeros(2), torch.ones(2), 1e-6)
    assert norm.train(torch.ones(1, 2)).tolist() == [[0, 0]]
    assert norm.var.isfinite().all()
