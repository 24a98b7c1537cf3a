from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from pa.data.store.stream import BlockShuffle
from pa.errors import UnknownNameError, UsageError
from pa.probe.attentive.recipes import ATTENTIVE_PROTOCOLS, PAPER, AttentiveRecipe


def test_paper_recipe_has_published_values() -> None:
    recipe = ATTENTIVE_PROTOCOLS["paper"]
    assert recipe == AttentiveRecipe()
    assert (recipe.lr, recipe.lr_per, recipe.epochs, recipe.batch) == (0.04, None, 90, 1024)
    assert (recipe.momentum, recipe.weight_decay, recipe.warmup) == (0.9, 0.0, 0)
    assert (recipe.norm_eps, recipe.bn_eps, recipe.bn_momentum) == (1e-6, 1e-5, 0.1)
    assert (recipe.bn_eval, recipe.reported) == ("running", "last epoch")


def differing(name: str) -> dict[str, Any]:
    recipe = ATTENTIVE_PROTOCOLS[name]
    return {
        item.name: getattr(recipe, item.name)
        for item in fields(recipe)
        if getattr(recipe, item.name) != getattr(PAPER, item.name)
    }


def test_protocol_differences_are_fields() -> None:
    assert differing("released") == {
        "protocol": "released",
        "lr": 0.01,
        "lr_per": 256,
        "bn_eval": "batch",
        "reported": "best epoch on the test split",
    }
    assert ATTENTIVE_PROTOCOLS["released"].eval_batch == 256
    assert differing("imagenet") == {"protocol": "imagenet"}
    assert differing("imagenet-cae") == {
        "protocol": "imagenet-cae",
        "lr": 0.4,
        "batch": 8192,
        "cosine": "iteration",
        "warmup": 10,
        "first_lr": 1e-6,
        "last_lr": 1e-6,
        "query_init": "zeros",
    }


def test_rates_by_epoch_are_the_released_formula() -> None:
    """`lr * 0.5 * (1 + cos(pi * epoch / epochs))`, base rate 0.01 for 256 rows, batch 1024."""
    for name in ("paper", "released"):
        recipe = ATTENTIVE_PROTOCOLS[name]
        assert recipe.peak(recipe.lr) == pytest.approx(0.04)
        for epoch in (0, 1, 30, 89):
            expected = 0.01 * 1024 / 256 * 0.5 * (1 + math.cos(math.pi * epoch / 90))
            for step in (0, 6):
                actual = recipe.rate(recipe.lr, epoch, step, 7)
                assert actual == pytest.approx(expected, rel=1e-12)


def test_rates_by_iteration_are_those_of_cae() -> None:
    """CAE's `cosine_scheduler`: np.linspace over the warm-up, then a cosine over the rest."""
    recipe, steps = ATTENTIVE_PROTOCOLS["imagenet-cae"], 7
    n_warmup, n = 10 * steps, 90 * steps
    warmup = np.linspace(1e-6, 0.4, n_warmup)
    rest = np.arange(n - n_warmup)
    cosine = 1e-6 + 0.5 * (0.4 - 1e-6) * (1 + np.cos(np.pi * rest / len(rest)))
    actual = [recipe.rate(0.4, epoch, step, steps) for epoch in range(90) for step in range(steps)]
    np.testing.assert_allclose(actual, np.concatenate([warmup, cosine]), rtol=1e-12)


def test_changed_fields_are_recorded() -> None:
    assert PAPER.to_json()["changed"] == {}
    assert replace(PAPER, seed=4).to_json()["changed"] == {}
    changed = replace(PAPER, lr=0.1, order=BlockShuffle(seed=2)).to_json()["changed"]
    assert changed == {"lr": 0.1, "order": {"seed": 2, "block_rows": 256, "buffer_rows": 2048}}
    with pytest.raises(UnknownNameError, match=r"unknown protocol 'relased'. Did you mean release"):
        ATTENTIVE_PROTOCOLS["relased"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"epochs": 0}, "must be 1 or more, not 0 and 1024"),
        ({"batch": 0}, "must be 1 or more, not 90 and 0"),
        ({"eval_batch": 0}, "evaluation batch must be 1 or more, not 0"),
        ({"lr": 0.0}, "the learning rate must be positive"),
        ({"lr": float("nan")}, "the learning rate must be positive"),
        ({"momentum": 1.0}, "below 1, not 0.04 and 1.0"),
        ({"weight_decay": -1.0}, "weight decay must not be negative"),
        ({"init_std": 0.0}, "must be positive: 0.0, 1.0, 0.01"),
        ({"warmup": 90}, "the warm-up must be shorter than the training: 90 of 90"),
        ({"attention_heads": 0}, "attention heads must be 1 or more, not 0"),
        ({"seed": -1}, "the seed must be between 0 and 4611686018427387904, not -1"),
        ({"bn_eval": "bach"}, "unknown bn_eval of a recipe 'bach'. Did you mean batch?"),
        ({"precision": "fp16"}, "unknown precision of a recipe 'fp16'"),
    ],
)
def test_recipe_out_of_range(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        AttentiveRecipe(**changed)
    assert text in str(caught.value)


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (192, 3), (64, 1), (1024, 16)])
def test_heads_are_64_wide(width: int, heads: int) -> None:
    assert PAPER.heads_of(width) == heads


@pytest.mark.parametrize(
    ("width", "heads", "text"),
    [
        (100, None, "heads of width 64 do not divide the tokens' width 100"),
        (48, None, "heads of width 64 do not divide the tokens' width 48"),
        (192, 5, "5 attention heads do not divide the tokens' width 192"),
    ],
)
def test_width_not_divisible_by_heads_is_refused(width: int, heads: int | None, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(PAPER, attention_heads=heads).heads_of(width)
    message = str(caught.value)
    assert text in message
    offered = [int(n) for n in message.rstrip(".").rpartition(": ")[2].split(", ")]
    assert offered
    for n in offered:  # what is offered works
        assert replace(PAPER, attention_heads=n).heads_of(width) == n
