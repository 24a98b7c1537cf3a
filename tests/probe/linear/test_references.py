from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, Ridge

from pa.probe.linear.references import (
    LOGISTIC_STRENGTHS,
    METHODS,
    RIDGE_STRENGTHS,
    fit_reference,
    logistic,
    ridge,
)
from pa.probe.selection import LabelledRows
from tests.support.arrays import Floats, blobs


def data(n: int, width: int = 5, n_classes: int = 3, seed: int = 0) -> tuple[Floats, np.ndarray]:
    features, labels = blobs(n, n_classes, width, spread=0.7, seed=seed)
    return features + 3, np.array([int(label[1:]) for label in labels])


@pytest.mark.parametrize(("n", "width"), [(120, 5), (20, 50)], ids=["tall", "wide"])
def test_ridge_of_every_strength_is_scikit_learns(n: int, width: int) -> None:
    x, y = data(n, width)
    models = ridge(x, y, 3, RIDGE_STRENGTHS)
    assert [model.strength for model in models] == list(RIDGE_STRENGTHS)
    scale = n * np.var(x.astype(np.float64), axis=0).sum() / width
    for model in models:
        reference = Ridge(alpha=model.strength * scale, solver="svd").fit(
            x.astype(np.float64), np.eye(3)[y]
        )
        np.testing.assert_allclose(model.weight, reference.coef_, atol=1e-7, rtol=1e-5)
        np.testing.assert_allclose(model.bias, reference.intercept_, atol=1e-6)
        np.testing.assert_array_equal(model.predict(x), reference.predict(x).argmax(1))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_regression_is_at_the_minimum_of_its_loss(n_classes: int) -> None:
    x, y = data(150, n_classes=n_classes)
    features, targets = torch.from_numpy(x).double(), torch.from_numpy(y)
    for model in logistic(x, y, n_classes, LOGISTIC_STRENGTHS):
        weight = torch.tensor(model.weight, requires_grad=True)
        bias = torch.tensor(model.bias, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, targets)
        (loss + model.strength / 2 * weight.square().sum()).backward()
        assert model.converged
        for parameter in (weight, bias):
            assert parameter.grad is not None
            assert parameter.grad.abs().max().item() < 2e-4


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_regression_is_the_optimum_that_scipy_finds(n_classes: int) -> None:
    """The documented loss, mean cross-entropy + λ/2·‖weight‖², minimised without scikit-learn."""
    x, y = data(80, n_classes=n_classes)
    wide, strength = x.astype(np.float64), 0.1

    def loss(flat: np.ndarray) -> float:
        weight, bias = np.split(flat.reshape(n_classes, -1), [x.shape[1]], axis=1)
        scores = wide @ weight.T + bias.T
        cross_entropy = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
        return float(cross_entropy.mean() + strength / 2 * (weight**2).sum())

    start = np.zeros(n_classes * (x.shape[1] + 1))
    best = minimize(loss, start, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8})
    model = logistic(x, y, n_classes, [strength])[0]
    weight = best.x.reshape(n_classes, -1)[:, : x.shape[1]]
    np.testing.assert_allclose(model.weight, weight, atol=1e-3)
    assert loss(np.column_stack([model.weight, model.bias]).ravel()) <= best.fun + 1e-7


def test_logistic_regression_is_scikit_learns_from_scratch() -> None:
    x, y = data(150)
    model = logistic(x, y, 3, [0.01])[0]
    reference = LogisticRegression(C=1 / (0.01 * 150), max_iter=2000, tol=1e-8)
    reference.fit(x.astype(np.float64), y)
    np.testing.assert_allclose(model.weight, reference.coef_, atol=1e-3)
    np.testing.assert_array_equal(model.predict(x), reference.predict(x))


def test_logistic_regression_without_convergence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pa.probe.linear.references.MAX_ITERATIONS", 2)
    x, y = data(150)
    assert not logistic(x, y, 3, [1e-5])[0].converged


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_penalty_is_selected_on_selection_rows(name: str) -> None:
    x, y = data(200)
    test, _ = data(60, seed=1)
    number = np.arange(200)
    rows = LabelledRows(x, y, number, number)
    sides = rows.part(number[:150]), rows.part(number[150:])
    fit, held = (x[:150], y[:150]), (x[150:], y[150:])
    done = fit_reference(name, rows, LabelledRows(test, y[:60], number, number), sides)
    method, strengths = METHODS[name]
    expected = {
        model.strength: (model.predict(held[0]) == held[1]).mean()
        for model in method(*fit, 3, strengths)
    }
    assert done.validation == pytest.approx(expected)
    best = [s for s, value in expected.items() if value == max(expected.values())]
    assert done.model.strength == max(best)
    again = method(x, y, 3, [done.model.strength])[0]
    np.testing.assert_array_equal(done.predicted, again.predict(test))
    written = done.to_json()
    assert written["strength"] == done.model.strength
    assert len(written["chosen_from"]) == len(strengths)
