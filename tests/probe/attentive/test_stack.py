from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pa.probe.attentive import pooling
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.stack import AttentiveStack
from tests.support.plain_attentive import PlainHead

CPU = torch.device("cpu")


def stirred(
    seeds: list[int], width: int, n_classes: int, recipe: AttentiveRecipe
) -> AttentiveStack:
    """Heads in the middle of a training: every number differs from its start."""
    heads = AttentiveStack.new(seeds, width, n_classes, recipe, CPU)
    draw = torch.Generator().manual_seed(1)
    for tensor in heads.parameters.values():
        tensor += 0.1 * torch.empty_like(tensor).normal_(generator=draw)
        tensor.requires_grad_(True)
    for tensor in heads.statistics.values():
        tensor += torch.empty_like(tensor).uniform_(generator=draw)
    return heads


def batch(n: int, n_tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    """Tokens with means and spreads of their own, as a network gives them."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.empty(n, n_tokens, width).normal_(generator=draw)
    return tokens * torch.empty(n, n_tokens, 1).uniform_(0.5, 3, generator=draw) + 0.7


@pytest.mark.parametrize(("width", "attention_heads"), [(64, None), (128, None), (96, 4), (48, 1)])
def test_logits_statistics_and_gradients_are_those_of_plain_torch(
    width: int, attention_heads: int | None
) -> None:
    recipe = replace(PAPER, attention_heads=attention_heads)
    heads = stirred([0, 1, 2], width, 5, recipe)
    plain = [PlainHead.like(heads, index) for index in range(3)]
    tokens, targets = batch(16, 10, width), torch.arange(16) % 5

    logits = heads.train_logits(tokens[:, 0], tokens[:, 1:], 0.1)
    losses = torch.stack([F.cross_entropy(item, targets) for item in logits])
    losses.sum().backward()

    for index, reference in enumerate(plain):
        expected = reference(tokens)
        torch.testing.assert_close(logits[index], expected, rtol=1e-5, atol=1e-5)
        F.cross_entropy(expected, targets).backward()
        gradients = reference.gradients()
        assert set(gradients) == set(heads.parameters)
        for name, gradient in gradients.items():
            actual = heads.parameters[name].grad[index]
            torch.testing.assert_close(actual, gradient, rtol=1e-5, atol=1e-5, msg=name)
        # What we leave out never moves.
        assert reference.norm_k.bias.grad.abs().max() < 1e-6
        assert reference.attention.in_proj_bias.grad.chunk(3)[1].abs().max() < 1e-6
        for name in ("bn_mean", "bn_var"):
            torch.testing.assert_close(
                heads.statistics[name][index], reference.places()[name], rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("by_batch", [False, True])
def test_evaluation_uses_running_or_batch_statistics(by_batch: bool) -> None:
    heads = stirred([0, 1], 64, 3, PAPER)
    tokens = batch(12, 7, 64)
    before = {name: tensor.clone() for name, tensor in heads.statistics.items()}
    with torch.no_grad():
        logits = heads.logits(tokens[:, 0], tokens[:, 1:], by_batch=by_batch)
        for index in range(2):
            reference = PlainHead.like(heads, index).train(by_batch)
            torch.testing.assert_close(logits[index], reference(tokens), rtol=1e-5, atol=1e-5)
    for name, tensor in heads.statistics.items():
        assert torch.equal(tensor, before[name])  # a test never moves the running statistics


def test_batch_norm_accepts_single_row() -> None:
    heads = stirred([0], 64, 3, PAPER)
    tokens = batch(1, 7, 64)
    logits = heads.train_logits(tokens[:, 0], tokens[:, 1:], 0.1)
    assert torch.equal(logits[0, 0], heads.parameters["bias"][0])
    assert heads.statistics["bn_var"].isfinite().all()


def test_pooling_in_pieces_is_pooling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = torch.randn(6, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    tokens = batch(11, 5, 32)
    results = []
    for values in (5 * 32 * 4, 1 << 30):  # four rows at a time, leaving three; all at once
        monkeypatch.setitem(pooling.CHUNK_VALUES, "cpu", values)
        pooled = pooling.pool(queries, tokens[:, 0], tokens[:, 1:], 1e-6, torch.float32)
        (gradient,) = torch.autograd.grad(pooled.square().sum(), queries)
        results.append((pooled, gradient))
    x = F.layer_norm(tokens, (32,), eps=1e-6)
    expected = (queries @ x.transpose(1, 2)).softmax(-1) @ x
    (gradient,) = torch.autograd.grad(expected.square().sum(), queries)
    for actual in results:
        torch.testing.assert_close(actual[0], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(actual[1], gradient, rtol=1e-5, atol=1e-4)


def test_half_precision_tokens_are_computed_exactly() -> None:
    heads = stirred([0], 64, 3, PAPER)
    stored = batch(8, 9, 64).half()
    from_half = heads.logits(stored[:, 0], stored[:, 1:])
    widened = stored.float()
    assert torch.equal(from_half, heads.logits(widened[:, 0], widened[:, 1:]))


def test_bf16_products_are_near_and_not_equal() -> None:
    recipe = replace(PAPER, precision="bf16")
    heads, exact = stirred([0], 64, 3, recipe), stirred([0], 64, 3, PAPER)
    tokens = batch(64, 9, 64)
    with torch.no_grad():
        actual = heads.logits(tokens[:, 0], tokens[:, 1:])
        expected = exact.logits(tokens[:, 0], tokens[:, 1:])
    assert not torch.equal(actual, expected)
    torch.testing.assert_close(actual, expected, rtol=0.02, atol=0.02)


# -- first weights ---------------------------------------------------------------------------------


def test_first_weights_follow_the_released_code() -> None:
    heads = AttentiveStack.new([0, 1], 256, 50, PAPER, CPU)
    p = heads.parameters
    # A normal of spread 0.02 cut at ± 0.02 has the spread 0.02 · sqrt(1 - 2 φ(1) / (2 Φ(1) - 1)).
    spread = 0.02 * (1 - 2 * 0.2419707 / 0.6826895) ** 0.5
    for name in ("query_weight", "key_weight", "value_weight", "out_weight"):
        assert p[name].abs().max() <= 0.02
        assert p[name].std().item() == pytest.approx(spread, rel=0.01)
    assert p["query"].abs().max() <= 0.02
    assert p["query"].std().item() == pytest.approx(spread, rel=0.1)
    assert p["weight"].std().item() == pytest.approx(0.01, rel=0.03)
    assert p["weight"].abs().max() > 0.02  # this one is not cut
    for name in ("query", "key", "value"):
        assert (p[f"{name}_gain"] == 1).all()
    zeros = [name for name in p if name.endswith(("bias", "shift"))]
    assert len(zeros) == 6
    assert all((p[name] == 0).all() for name in zeros)
    assert not torch.equal(p["query_weight"][0], p["query_weight"][1])


def test_zero_query_changes_nothing_else() -> None:
    normal = AttentiveStack.new([3], 64, 4, PAPER, CPU)
    zeros = AttentiveStack.new([3], 64, 4, replace(PAPER, query_init="zeros"), CPU)
    assert (zeros.parameters["query"] == 0).all()
    for name, tensor in zeros.parameters.items():
        assert name == "query" or torch.equal(tensor, normal.parameters[name])


def test_zero_query_learns() -> None:
    """LayerNorm of zeros is zero, but its shift and the query's bias get gradients."""
    heads = AttentiveStack.new([0], 64, 3, replace(PAPER, query_init="zeros"), CPU)
    for tensor in heads.parameters.values():
        tensor.requires_grad_(True)
    tokens = batch(12, 9, 64)
    logits = heads.train_logits(tokens[:, 0], tokens[:, 1:], 0.1)
    F.cross_entropy(logits[0], torch.arange(12) % 3).backward()
    assert heads.parameters["query_bias"].grad.abs().max() > 0
    assert heads.parameters["weight"].grad.isfinite().all()
