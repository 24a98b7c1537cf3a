"""Intervals over images as queries and gallery, against derivatives, the jackknife and coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pa.evaluate import gallery_effects
from pa.evaluate.bootstrap import bootstrap_means, influence
from pa.evaluate.intervals import GALLERY
from pa.evaluate.retrieval import evaluate_all_pairs

Floats = npt.NDArray[np.float64]
PARTS = tuple("abcd")


def photographs(n_images: int, seed: int, width: int = 8) -> tuple[Any, Any, Any]:
    """Features, parts and images of rows; the rows of an image share a random direction."""
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(n_images), rng.integers(1, 5, n_images))
    parts = np.concatenate([rng.choice(4, n, replace=False) for n in np.bincount(images)])
    centres = np.random.default_rng(5).standard_normal((4, width))
    features = centres[parts] + rng.standard_normal((n_images, width))[images]
    features += rng.standard_normal((len(parts), width))
    return features.astype(np.float32), parts, images


def weighted(features: Any, parts: Any, weights: Floats, include_self: bool) -> Floats:
    """AP of every query with weights of the items, by its definition; the query itself has 1."""
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    out = np.full(len(units), np.nan)
    for query in range(len(units)):
        kept = np.arange(len(units)) != query
        direct = weights.copy()
        direct[query] = 1
        if include_self:
            kept[query] = True
        score, right, w = (a[kept] for a in (units @ units[query], parts == parts[query], direct))
        above = score[None, :] >= score[right, None]
        hits, items = above @ (w * right), above @ w
        if right.any():
            out[query] = (w[right] * hits / items).sum() / w[right].sum()
    return out


@pytest.mark.parametrize("include_self", [False, True])
def test_effects_are_the_derivatives_by_the_weight_of_each_item(include_self: bool) -> None:
    features, parts, _ = photographs(16, seed=0)
    features[7] = features[3]  # equal scores
    effects = evaluate_all_pairs(
        features, parts, include_self=include_self, with_effects=True
    ).effects
    assert effects is not None
    assert effects.of_class is not None
    step, expected = 1e-5, np.zeros((len(parts), 4))
    for item in range(len(parts)):
        ends = []
        for sign in (1, -1):
            weights = np.ones(len(parts))
            weights[item] += sign * step
            ap = weighted(features, parts, weights, include_self)
            ends.append([np.nansum(ap[parts == part]) for part in range(4)])
        expected[item] = np.subtract(*ends) / (2 * step)
    np.testing.assert_allclose(effects.of_class, expected, atol=1e-7)
    np.testing.assert_allclose(effects.all, expected.sum(axis=1), atol=1e-7)
    by_part = expected / np.bincount(parts)
    np.testing.assert_allclose(effects.over_classes, by_part.mean(axis=1), atol=1e-7)


def test_error_equals_leaving_out_each_image() -> None:
    """The jackknife scores all that is left, once without each image."""
    features, parts, images = photographs(80, seed=1)
    actual = evaluate_all_pairs(features, parts, with_effects=True)
    assert actual.effects is not None
    each = np.bincount(images, influence(actual.ap, actual.effects))
    left = [
        np.nanmean(evaluate_all_pairs(features[images != item], parts[images != item]).ap)
        for item in range(80)
    ]
    jackknife = np.sqrt(79 / 80 * np.square(left - np.mean(left)).sum())
    assert np.sqrt(np.square(each).sum()) == pytest.approx(jackknife, rel=0.05)
    fixed = np.bincount(images, actual.ap - actual.ap.mean()) / len(images)
    assert jackknife > 1.5 * np.sqrt(np.square(fixed).sum())


def test_error_from_sampled_queries_is_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    features, parts, images = photographs(300, seed=2)

    def error() -> float:
        actual = evaluate_all_pairs(features, parts, with_effects=True)
        assert actual.effects is not None
        each = np.bincount(images, influence(actual.ap, actual.effects))
        return float(np.sqrt(np.square(each).sum()))

    monkeypatch.setattr(gallery_effects, "SAMPLED", 10**6)
    exact = error()
    monkeypatch.setattr(gallery_effects, "SAMPLED", 256)
    assert error() == pytest.approx(exact, rel=0.05)
    assert error() != exact


def test_effects_of_many_classes_are_not_kept_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    features, parts, images = photographs(30, seed=3)
    monkeypatch.setattr(gallery_effects, "KEPT", 10)
    actual = evaluate_all_pairs(features, parts, with_effects=True)
    means = bootstrap_means(actual.ap, images, parts, PARTS, effects=actual.effects)
    assert means.overall.to_json()["interval_method"] == GALLERY
    assert means.over_parts.to_json()["interval_method"] == GALLERY
    assert "interval_fixed_gallery" not in means.parts["a"].to_json()


@pytest.mark.parametrize("n_images", [8, 30])
def test_coverage_of_new_images(n_images: int) -> None:
    """Of intervals of 95 %, some 95 of 100 hold the mean over many such sets of images, and far
    fewer where the gallery is held fixed."""
    means = []
    for seed in range(120):
        features, parts, images = photographs(n_images, seed)
        actual = evaluate_all_pairs(features, parts, with_effects=True)
        means.append(
            bootstrap_means(actual.ap, images, parts, PARTS, effects=actual.effects).overall
        )
    truth = np.mean([mean.value for mean in means])
    fixed = [mean.fixed_gallery for mean in means if mean.fixed_gallery is not None]
    assert len(fixed) == 120
    assert np.mean([mean.low <= truth <= mean.high for mean in means]) > 0.9
    assert np.mean([item.low <= truth <= item.high for item in fixed]) < 0.85


@pytest.mark.parametrize("n_images", [2, 3, 6])
def test_new_images_are_never_more_certain_than_a_fixed_gallery(n_images: int) -> None:
    """With few images the effects as queries and in the gallery can cancel out by chance."""
    for seed in range(40):
        features, parts, images = photographs(n_images, seed)
        if len(np.unique(parts)) < 2 or np.bincount(parts).max() < 2:
            continue  # whatever is retrieved is right, or nothing can be
        actual = evaluate_all_pairs(features, parts, with_effects=True)
        mean = bootstrap_means(actual.ap, images, parts, PARTS, effects=actual.effects).overall
        if (fixed := mean.fixed_gallery) is not None:
            assert mean.high - mean.low >= fixed.high - fixed.low
