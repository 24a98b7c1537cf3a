from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score

from pa.errors import UsageError
from pa.evaluate import cosines
from pa.evaluate.average_precision_torch import all_pairs
from pa.evaluate.cosines import UnitVectors
from pa.evaluate.retrieval import evaluate_all_pairs
from pa.progress import Silent


def oracle(
    features: npt.NDArray[Any], labels: npt.NDArray[Any], include_self: bool = False
) -> npt.NDArray[np.float64]:
    """scikit-learn, query by query, on cosines in float64."""
    wide = features.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    out = np.empty(len(wide))
    for query in range(len(wide)):
        row = (wide[query] * wide).sum(axis=1)  # each on its own: copies of a vector tie
        kept = np.ones(len(row), dtype=bool)
        kept[query] = include_self
        relevant = labels[kept] == labels[query]
        out[query] = average_precision_score(relevant, row[kept]) if relevant.any() else np.nan
    return out


def clustered(n: int = 400, width: int = 16, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(["head", "leg", "tail", "wing"], n, p=[0.4, 0.3, 0.2, 0.1])
    centres = rng.standard_normal((4, width))
    features = centres[np.unique(labels, return_inverse=True)[1]]
    return (features + 1.5 * rng.standard_normal((n, width))).astype(np.float32), labels


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_ap_of_every_query_equals_scikit_learn(include_self: bool, device: str) -> None:
    features, labels = clustered()
    actual = _evaluate(features, labels, include_self, device)
    np.testing.assert_allclose(actual, oracle(features, labels, include_self), atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_copies_of_a_vector_are_ties(device: str) -> None:
    features, labels = clustered(120)
    features = np.vstack([features, features[:40], features[:20]])
    labels = np.concatenate([labels, np.roll(labels[:40], 7), np.roll(labels[:20], 3)])
    actual = _evaluate(features, labels, False, device)
    np.testing.assert_allclose(actual, oracle(features, labels), atol=1e-6)


def test_constant_vectors_give_the_prior() -> None:
    labels = np.array(["a"] * 30 + ["b"] * 70)
    actual = evaluate_all_pairs(np.ones((100, 8), dtype=np.float16), labels)
    np.testing.assert_allclose(actual.ap, actual.prior, atol=1e-12)
    np.testing.assert_allclose(actual.prior, [29 / 99] * 30 + [69 / 99] * 70)


def test_opposite_classes_are_retrieved_perfectly() -> None:
    features = np.repeat([[1.0, 0.1], [-1.0, 0.1]], 5, axis=0)
    actual = evaluate_all_pairs(features, np.repeat([0, 1], 5))
    assert (actual.ap == 1).all()


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_class_of_one_row_has_no_score(device: str) -> None:
    features, labels = clustered(50)
    labels = np.append(labels, "beak")
    features = np.vstack([features, features[:1] + 1])
    actual = _evaluate(features, labels, False, device)
    assert np.isnan(actual[-1])
    assert not np.isnan(actual[:-1]).any()
    assert not np.isnan(_evaluate(features, labels, True, device)).any()


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clustered(300)
    whole = evaluate_all_pairs(features, labels).ap
    monkeypatch.setattr(cosines, "BLOCK_BYTES", 4 * 300 * 7)
    np.testing.assert_allclose(evaluate_all_pairs(features, labels).ap, whole, atol=1e-6)


def test_scores_ignore_row_order() -> None:
    features, labels = clustered(200)
    order = np.random.default_rng(1).permutation(200)
    ap = evaluate_all_pairs(features, labels).ap
    moved = evaluate_all_pairs(features[order], labels[order]).ap
    np.testing.assert_allclose(moved, ap[order], atol=1e-6)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (0, "zeros")])
def test_rows_without_a_cosine_are_named(value: float, what: str) -> None:
    features, labels = clustered(20)
    features[7] = value
    with pytest.raises(UsageError, match=f"{what}.* row 107"):
        evaluate_all_pairs(features, labels, rows=np.arange(100, 120))


def test_single_class_is_refused() -> None:
    features, _ = clustered(20)
    with pytest.raises(UsageError, match="the same label, 'leg'"):
        evaluate_all_pairs(features, np.array(["leg"] * 20))


def test_unequal_lengths_are_refused() -> None:
    features, labels = clustered(20)
    with pytest.raises(UsageError, match="equally long"):
        evaluate_all_pairs(features, labels[:19])


def _evaluate(
    features: npt.NDArray[Any], labels: npt.NDArray[Any], include_self: bool, device: str
) -> npt.NDArray[np.float64]:
    if device == "cpu":
        return evaluate_all_pairs(features, labels, include_self=include_self).ap
    _, classes = np.unique(labels, return_inverse=True)
    order = np.argsort(classes, kind="stable")
    bounds = np.searchsorted(classes[order], np.arange(classes.max() + 2))
    out = np.empty(len(features))
    gallery = UnitVectors.of(features[order])
    out[order] = all_pairs(gallery, bounds, include_self, "cpu", Silent())
    return out
