from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from pa.errors import UnknownNameError, UsageError
from pa.probe.linear.recipes import LINEAR_PROTOCOLS, PAPER, LinearRecipe
from pa.probe.recipes import BEST_ON_TEST, PART_STORES, permitted_differences


def differences(name: str) -> dict[str, Any]:
    usual, named = asdict(PAPER), asdict(LINEAR_PROTOCOLS[name])
    return {key: value for key, value in named.items() if value != usual[key]}


def rate(recipe: LinearRecipe, epoch: float) -> float:
    return recipe.peak(recipe.lr) * recipe.factor(epoch)


def test_paper_recipe_has_published_values() -> None:
    recipe = LINEAR_PROTOCOLS["paper"]
    assert recipe == LinearRecipe()
    assert (recipe.lr, recipe.epochs, recipe.batch) == (0.4, 90, 1024)
    assert (recipe.momentum, recipe.weight_decay, recipe.init_std) == (0.9, 0.0, 0.01)
    rates = [rate(recipe, epoch) for epoch in (0, 45, 60)]
    assert rates == pytest.approx([0.4, 0.2, 0.1])


def test_released_reports_the_best_epoch_on_the_test_split() -> None:
    released = LINEAR_PROTOCOLS["released"]
    assert differences("released") == {
        "protocol": "released",
        "lr": 0.1,
        "lr_per": 256,
        "reported": BEST_ON_TEST,
    }
    assert rate(released, 0) == pytest.approx(rate(PAPER, 0))
    pair = PART_STORES["released"]
    assert (pair.train, pair.test) == ("released-train", "released")
    assert permitted_differences("paper") == ()


def test_imagenet_of_cae() -> None:
    recipe = LINEAR_PROTOCOLS["imagenet-cae"]
    assert differences("imagenet-cae") == {
        "protocol": "imagenet-cae",
        "optimizer": "lars",
        "lr": 0.1,
        "lr_per": 256,
        "batch": 16384,
        "drop_last": True,
        "cosine": "iteration",
        "warmup": 10,
        "batch_norm": True,
    }
    assert rate(recipe, 10) == pytest.approx(6.4)
    assert rate(recipe, 5) == pytest.approx(3.2)
    assert rate(recipe, 50) == pytest.approx(3.2)
    assert rate(replace(recipe, batch=4096), 10) == pytest.approx(1.6)
    assert (recipe.optimizer, recipe.bn_eps) == ("lars", 1e-6)


def test_plain_imagenet_is_the_papers_numbers_under_its_own_name() -> None:
    assert differences("imagenet") == {"protocol": "imagenet"}
    assert "imagenet" not in PART_STORES


def test_changed_fields_are_recorded() -> None:
    assert PAPER.to_json()["changed"] == {}
    assert replace(PAPER, seed=4).to_json()["changed"] == {}
    assert replace(PAPER, lr=0.1, epochs=5).to_json()["changed"] == {"lr": 0.1, "epochs": 5}
    with pytest.raises(UnknownNameError, match=r"unknown protocol 'papre'. Did you mean paper"):
        LINEAR_PROTOCOLS["papre"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"epochs": 0}, "epochs and batch must be 1 or more, not 0 and 1024"),
        ({"batch": 0}, "epochs and batch must be 1 or more, not 90 and 0"),
        ({"lr": 0.0}, "the learning rate must be positive"),
        ({"lr": float("nan")}, "the learning rate must be positive"),
        ({"momentum": 1.0}, "momentum at least 0 and below 1, not 0.4 and 1.0"),
        ({"weight_decay": -1.0}, "weight decay must not be negative: -1.0"),
        ({"seed": -1}, "the seed must be between 0 and 4611686018427387904, not -1"),
        ({"warmup": 90}, "the warm-up must be shorter than the training: 90 of 90 epochs"),
        ({"bn_eval": "runing"}, "unknown bn_eval of a recipe 'runing'. Did you mean running"),
        ({"optimizer": "adam"}, "unknown optimizer of a recipe 'adam'"),
    ],
)
def test_recipe_out_of_range(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        LinearRecipe(**changed)
    assert text in str(caught.value)
